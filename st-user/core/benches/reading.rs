//! Reading an INVITE with 13 headers and an SDP: all that the engine asks of it, beside what rsip takes to parse it and to
//! type four headers. The last line is the ratio.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use rsip::{headers::ToTypedHeader as _, message::HeadersExt as _};
use st_core::{
    build::own_headers,
    message::{Body, Message},
};

const INVITE: &str = "INVITE sip:+15551234567@203.0.113.20:5060;transport=udp SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKPj8f0b2a7e4c1d4b7f9a63c5d2e1f0a9b8\r\n\
    Max-Forwards: 70\r\n\
    From: \"Alice Example\" <sip:+15557654321@voice.example.org>;tag=8d1f6c0e-3b5a-4f9e-a6d7-2c4b8e9f1a30\r\n\
    To: <sip:+15551234567@carrier.example>\r\n\
    Call-ID: 3f2b9c4e-7a1d-4e8b-9c5f-6d0a1b2c3d4e@192.0.2.10\r\n\
    CSeq: 4711 INVITE\r\n\
    Contact: <sip:voice@192.0.2.10:5060;transport=udp>\r\n\
    Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY, REFER\r\n\
    Supported: timer, replaces, 100rel\r\n\
    Session-Expires: 1800;refresher=uac\r\n\
    User-Agent: Example Voice 4.2\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 393\r\n\r\n\
    v=0\r\n\
    o=- 3950847362 3950847362 IN IP4 192.0.2.10\r\n\
    s=example\r\n\
    c=IN IP4 192.0.2.10\r\n\
    t=0 0\r\n\
    m=audio 40002 RTP/AVP 8 0 9 18 101\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:9 G722/8000\r\n\
    a=rtpmap:18 G729/8000\r\n\
    a=fmtp:18 annexb=no\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\n\
    a=ptime:20\r\n\
    a=maxptime:150\r\n\
    a=rtcp:40003 IN IP4 192.0.2.10\r\n\
    a=ssrc:2872435911 cname:3f2b9c4e\r\n\
    a=sendrecv\r\n";

/// Everything that the engine asks of an INVITE, the server's or the peer's, outside a dialog or in one, each once.
fn read_here(bytes: &[u8]) -> usize {
    let message = Message::scan(bytes, false).expect("a message");
    let (from, to) = (message.from().expect("From"), message.to().expect("To"));
    let cseq = message.cseq().expect("CSeq");
    let (via, more) = message.vias();
    let via = via.expect("Via");
    black_box((message.request_method(), message.request_uri(), message.call_id(), from, to, cseq));
    black_box((via, more, via.our_token(), message.contact(), from.host()));
    black_box((message.record_routes().count(), message.routes().count()));
    black_box((message.supports(b"timer"), message.allows(b"UPDATE")));
    own_headers(&message).for_each(|header| _ = black_box(header));
    black_box((message.session_expires(), message.min_se(), message.content_type(), message.is_sdp()));
    match message.body() {
        Body::Whole(sdp) => sdp.len(),
        Body::None | Body::Cut => 0,
    }
}

fn read_by_rsip(bytes: &[u8]) -> usize {
    let request = rsip::Request::try_from(bytes).expect("a request");
    let from = request.from_header().and_then(|from| from.typed());
    let to = request.to_header().and_then(|to| to.typed());
    let via = request.via_header().and_then(|via| via.typed());
    let cseq = request.cseq_header().and_then(|cseq| cseq.typed());
    black_box((from.expect("From"), to.expect("To"), via.expect("Via"), cseq.expect("CSeq")));
    request.body.len()
}

/// The median times of one call each, over batches of ten. They take turns, so that what else the machine does meets both.
fn medians<const N: usize>(reads: [fn(&[u8]) -> usize; N]) -> [Duration; N] {
    const BATCH: u32 = 10;
    let mut times = [const { Vec::new() }; N];
    for _ in 0..10_000 {
        for (read, times) in reads.iter().zip(&mut times) {
            let begin = Instant::now();
            (0..BATCH).for_each(|_| {
                black_box(read(black_box(INVITE.as_bytes())));
            });
            times.push(begin.elapsed() / BATCH);
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

fn main() {
    assert_eq!(read_here(INVITE.as_bytes()), 393);
    assert_eq!(read_by_rsip(INVITE.as_bytes()), 393);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("reading an INVITE");
    group.throughput(Throughput::Bytes(INVITE.len() as u64));
    group.bench_function("scan only", |bencher| bencher.iter(|| Message::scan(black_box(INVITE.as_bytes()), false)));
    group.bench_function("sipst", |bencher| bencher.iter(|| read_here(black_box(INVITE.as_bytes()))));
    group.bench_function("rsip", |bencher| bencher.iter(|| read_by_rsip(black_box(INVITE.as_bytes()))));
    group.finish();
    criterion.final_summary();

    let [here, rsip] = medians([read_here, read_by_rsip]);
    let ratio = rsip.as_secs_f64() / here.as_secs_f64();
    println!("reading an INVITE: sipst {here:?}, rsip {rsip:?}: {ratio:.1} times as fast (wanted: 10)");
}
