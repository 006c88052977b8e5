// A user agent of JsSIP over UDP, its WebSocket replaced by a datagram socket and its media by nothing.
// node jssip.cjs <path of the jssip package> <own IP> <UPDATE or INVITE> [<URI to call>]
'use strict';

const dgram = require('node:dgram');
const { EventEmitter } = require('node:events');

const [path, own, method, target] = process.argv.slice(2);
const PROBE = { port: 5060, address: own.replace(/\.\d+$/, '.2') };

const SDP = `v=0\r\no=stack 1 1 IN IP4 ${own}\r\ns=-\r\nc=IN IP4 ${own}\r\nt=0 0\r\nm=audio 41000 RTP/AVP 0\r\na=sendrecv\r\n`;

globalThis.window = globalThis;
globalThis.RTCSessionDescription = class { constructor(init) { Object.assign(this, init); } };
globalThis.RTCPeerConnection = class extends EventEmitter {
  constructor() {
    super();
    Object.assign(this, { signalingState: 'stable', iceGatheringState: 'complete', iceConnectionState: 'connected' });
  }
  addEventListener(...args) { this.on(...args); }
  removeEventListener(...args) { this.off(...args); }
  async createOffer() { return { type: 'offer', sdp: SDP }; }
  async createAnswer() { return { type: 'answer', sdp: SDP }; }
  async setLocalDescription(description) { this.localDescription = description; }
  async setRemoteDescription(description) { this.remoteDescription = description; }
  getSenders() { return []; }
  getReceivers() { return []; }
  close() { this.signalingState = 'closed'; }
};

const JsSIP = require(path);

class Datagrams {
  constructor() {
    this.url = `udp://${own}:5060`;
    this.sip_uri = `sip:${own}:5060`;
    this.via_transport = 'UDP';
    this.socket = dgram.createSocket('udp4');
    this.socket.on('message', (data) => this.ondata(data.toString()));
  }
  connect() { this.socket.bind(5060, own, () => this.onconnect()); }
  disconnect() { this.socket.close(); }
  send(message) { this.socket.send(message, PROBE.port, PROBE.address); return true; }
}

const agent = new JsSIP.UA({
  sockets: [new Datagrams()],
  uri: `sip:stack@${own}`,
  contact_uri: `sip:stack@${own}:5060`,
  register: false,
  session_timers: true,
  session_timers_refresh_method: method,
});
const options = { mediaConstraints: { audio: false, video: false } };
agent.on('newRTCSession', ({ originator, session }) => {
  if (originator === 'remote') session.answer(options);
});
if (target) agent.on('connected', () => agent.call(target, options));
agent.start();
