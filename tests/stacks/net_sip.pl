# A user agent of Net::SIP: calls, holds the call, hangs up. It logs all messages.
# net_sip.pl <own IP> <URI to call> <seconds that it holds the call>

use strict;
use warnings;
use IO::Socket::INET;
use Net::SIP;
use Net::SIP::Debug;

Net::SIP::Debug->level('Net::SIP::Leg=10');
$| = 1;

my ($own, $callee, $hold) = @ARGV;
my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => $own, LocalPort => 5060) or die "$own:5060: $!\n";
my $agent = Net::SIP::Simple->new(from => "sip:server\@$own", leg => Net::SIP::Leg->new(sock => $socket));
my $sdp = Net::SIP::SDP->new({ addr => $own }, { media => 'audio', proto => 'RTP/AVP', port => 41000, fmt => 0 });

my $over;
my $call = $agent->invite($callee, sdp => $sdp, media_lsocks => [[]], init_media => sub { },
    recv_bye => sub { print "the peer hung up\n"; $over = 1 });
die 'no call: ', $agent->error, "\n" unless $call && !$agent->error;
print "in the call\n";
$agent->loop($hold, \$over);
exit 1 if $over;
my $answered;
$call->bye(cb_final => sub { $answered = 1 });
$agent->loop(10, \$answered);
print $answered ? "hung up\n" : "no answer to BYE\n";
exit !$answered;
