# A SIP server over TCP that knows nothing of session timers: asks the peer OPTIONS, calls it, holds the call, sends an INFO, hangs up.
# It logs what it gets. Answers that it is not waiting for it lets be, as a transaction layer does.
# `halves`: one of the OPTIONS is written in two. `mixed`: instead of the INFO two OPTIONS are written at once. `mixed` and `stays`: the
# connection stays open for a while after the BYE.
# `long`: it goes on once it has an answer to something of sipst's, and instead of the INFO there are three of several segments each, whose
# numbers stand across the end of the first segment, before it and far behind it.
# tcp_server.pl <own IP> <peer's IP> <how many OPTIONS> <whole | stays | halves | mixed | long> <seconds that it holds the call>

use strict;
use warnings;
use IO::Select;
use IO::Socket::IP;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

$| = 1;
my ($own, $peer, $count, $how, $hold) = @ARGV;
my ($host, $far) = map { /:/ ? "[$_]" : $_ } $own, $peer;
my $socket = IO::Socket::IP->new(LocalHost => $own, PeerHost => $peer, PeerPort => 5060, Proto => 'tcp') or die "connect: $@\n";
$socket->setsockopt(IPPROTO_TCP, TCP_NODELAY, 1);
my $select = IO::Select->new($socket);
my ($held, $branches, $taken) = ('', 0, 0);

sub put { defined syswrite($socket, $_[0]) or die "write: $!\n" }

# The next message, or nothing within that many seconds.
sub get {
    my $until = time + shift;
    while (1) {
        $held =~ s/^(\r\n)+//;
        if ($held =~ /^(.*?\r\n\r\n)/s) {
            my $length = length $1;
            $length += $1 if $1 =~ /^content-length *: *(\d+)/im || $held =~ /^content-length *: *(\d+)/im;
            if (length $held >= $length) {
                my $message = substr $held, 0, $length, '';
                my ($first) = $message =~ /^([^\r]*)/;
                my ($cseq) = $message =~ /^CSeq: *(.*?)\r/im;
                $taken = 1 if $first =~ m{^SIP/2.0 100 };
                print "got: $first | $cseq\n" unless $message =~ /OPTIONS\r/;
                return $message;
            }
        }
        my $left = $until - time;
        return if $left < 0 || !$select->can_read($left || 0.1);
        sysread($socket, $held, 65536, length $held) or die "the connection is closed\n";
    }
}

sub request {
    my ($method, $number, $tag, $body) = @_;
    my $branch = 'z9hG4bKserver' . ++$branches;
    my $to = $tag ? ";tag=$tag" : '';
    my $type = $body ? "Content-Type: application/sdp\r\n" : '';
    my $call = $method eq 'OPTIONS' ? "options-$number" : 'call-1';
    return "$method sip:peer\@$far SIP/2.0\r\nVia: SIP/2.0/TCP $host:5060;branch=$branch\r\nMax-Forwards: 70\r\n"
        . "From: <sip:server\@$host>;tag=srv\r\nTo: <sip:peer\@$far>$to\r\nCall-ID: $call\@$host\r\nCSeq:     $number $method\r\n"
        . "Contact: <sip:server\@$host:5060;transport=tcp>\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO\r\n"
        . "${type}Content-Length: " . length($body) . "\r\n\r\n$body";
}

# What a segment carries, with timestamps.
my $segment = $own =~ /:/ ? 1428 : 1448;

# A request whose number, as many digits behind its first, stands at that offset.
sub long {
    my ($method, $number, $tag, $at, $behind) = @_;
    my $message = request($method, $number, $tag, 'x' x 6000);
    my ($header, $name) = (index($message, 'CSeq:'), "X-Long: \r\n");
    my $there = index($message, " $number $method") + 1 + $behind;
    my $long = 'X-Long: ' . 'y' x ($at - $there - length $name) . "\r\n";
    return substr($message, 0, $header) . $long . substr($message, $header);
}

# The final answer to the request with that number, which has to have it as the server wrote it.
sub answer {
    my ($method, $number) = @_;
    while (my $message = get(20)) {
        return $message if $message =~ m{^SIP/2.0 [2-6]} && $message =~ /^CSeq: *$number $method\r/im && $message =~ /z9hG4bKserver/;
        serve($message);
    }
    die "no answer to $method $number\n";
}

# A request of the peer's: whatever it is, it is answered.
sub serve {
    my ($message) = @_;
    return if $message =~ m{^SIP/2.0 } || $message =~ /^ACK /;
    my $lines = join '', $message =~ /^((?:Via|From|To|Call-ID|CSeq):.*?\r\n)/gim;
    put("SIP/2.0 200 OK\r\n${lines}Content-Length: 0\r\n\r\n");
    if ($message =~ /^BYE /) {
        print "the peer hung up\n";
        exit 1;
    }
}

for my $number (1 .. $count) {
    my $halves = $how eq 'halves' && $number == int($count / 2);
    my $message = request('OPTIONS', $number, '', $halves ? 'x' x 300 : '');
    if ($halves) {
        my $cut = index($message, "\r\n\r\n") + 4;
        put(substr $message, 0, $cut);
        select undef, undef, undef, 0.02;
        put(substr $message, $cut);
    } else {
        put($message);
    }
    answer('OPTIONS', $number);
}
print "asked all\n";
my $sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 41000 RTP/AVP 0\r\n";
put(request('INVITE', 1, '', $sdp));
my $ok = answer('INVITE', 1);
my ($tag) = $ok =~ /^To:.*;tag=([^;\r]+)/im;
put(request('ACK', 1, $tag, ''));
print "in the call\n";
my $end = time + $hold;
while (time < $end && !($how eq 'long' && $taken)) {
    my $message = get($end - time);
    serve($message) if $message;
}
if ($how eq 'mixed') {
    put(request('OPTIONS', $count + 1, '', '') . request('OPTIONS', $count + 2, '', ''));
    answer('OPTIONS', $count + $_) for 1, 2;
    # So that it has been seen by then.
    serve($_) for get(1) || ();
}
if ($how eq 'long') {
    for ([99, $segment, 1], [199, $segment, 3], [299, 3 * $segment, -100]) {
        my ($number, @place) = @$_;
        put(long('INFO', $number, $tag, @place));
        my ($status) = answer('INFO', $number) =~ m{^SIP/2.0 (\d+)};
        print "INFO: $status\n";
    }
}
my @last = $how eq 'mixed' ? (['BYE', 3]) : $how eq 'long' ? (['BYE', 300]) : (['INFO', 2], ['BYE', 3]);
for my $request (@last) {
    put(request(@$request, $tag, ''));
    my ($status) = answer(@$request) =~ m{^SIP/2.0 (\d+)};
    print "$request->[0]: $status\n";
}
# What comes now is nobody's.
get(2) if $how =~ /^(mixed|stays)$/;
