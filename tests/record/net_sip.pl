# A user agent of Net::SIP: takes every call, or makes one; hangs up by nobody's wish but the other side's.
# net_sip.pl <own IP> [<URI to call>]

use strict;
use warnings;
use IO::Socket::INET;
use Net::SIP;

$| = 1;

my ($own, $callee) = @ARGV;
my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => $own, LocalPort => 5060) or die "$own:5060: $!\n";
my $agent = Net::SIP::Simple->new(from => "sip:stack\@$own", leg => Net::SIP::Leg->new(sock => $socket));
my $sdp = Net::SIP::SDP->new({ addr => $own }, { media => 'audio', proto => 'RTP/AVP', port => 41000, fmt => 0 });
my @media = (sdp => $sdp, media_lsocks => [[]], init_media => sub { });

if ($callee) {
    my $call = $agent->invite($callee, @media);
    die 'no call: ', $agent->error, "\n" unless $call && !$agent->error;
} else {
    $agent->listen(@media);
}
$agent->loop;
