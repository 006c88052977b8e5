# A user agent of Net::SIP: calls, sends sound for a while, holds the call, hangs up. It logs all messages.
# net_sip.pl <own IP> <URI to call> <seconds that it holds the call> <seconds that it sends sound>

use strict;
use warnings;
use Net::SIP;
use Net::SIP::Debug;
use Net::SIP::Util 'INETSOCK';

Net::SIP::Debug->level('Net::SIP::Leg=10');
$| = 1;

my ($own, $callee, $hold, $talk) = @ARGV;
my $host = $own =~ /:/ ? "[$own]" : $own;
my $socket = INETSOCK(Proto => 'udp', LocalAddr => $own, LocalPort => 5060) or die "$own:5060: $!\n";
my $agent = Net::SIP::Simple->new(from => "sip:server\@$host", leg => Net::SIP::Leg->new(sock => $socket));
my $sdp = Net::SIP::SDP->new({ addr => $own }, { media => 'audio', proto => 'RTP/AVP', port => 41000, fmt => 0 });

# Not the module's own way to send: that hangs up where it hears nothing for 10 s.
my $sound = sub {
    my ($call, $args) = @_;
    my ($socket, $to) = map { ref($_) eq 'ARRAY' ? $_->[0] : $_ } $args->{media_lsocks}[0], $args->{media_raddr}[0];
    my ($sent, $timer) = (0);
    my $send = sub {
        return $timer->cancel if $sent == 50 * $talk;
        send($socket, pack('CCnNN', 0x80, 0, $sent, 160 * $sent, 1) . "\xff" x 160, 0, $to);
        print "has said all\n" if ++$sent == 50 * $talk;
    };
    $timer = $call->{dispatcher}->add_timer(0, $send, 0.02, 'sound');
};
my @media = $talk ? (init_media => $sound) : (sdp => $sdp, media_lsocks => [[]], init_media => sub { });

my $over;
my $call = $agent->invite($callee, @media, recv_bye => sub { print "the peer hung up\n"; $over = 1 });
die 'no call: ', $agent->error, "\n" unless $call && !$agent->error;
print "in the call\n";
$agent->loop($hold, \$over);
exit 1 if $over;
my $answered;
$call->bye(cb_final => sub { $answered = 1 });
$agent->loop(10, \$answered);
print $answered ? "hung up\n" : "no answer to BYE\n";
exit !$answered;
