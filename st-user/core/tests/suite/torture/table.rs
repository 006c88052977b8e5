//! The table: what is odd about each message, and what it must come to.

use st_core::message::ScanError;

/// What becomes of a message that comes from the peer to an engine that knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Counted as no SIP message.
    Unparsable,
    /// Counted as a message that names no dialog or transaction.
    Unidentified,
    /// Counted as one of a dialog that is not known.
    UnknownDialog,
    /// An INVITE that waits for the server's answer.
    Invite,
    /// Counted as a message; it concerns no dialog.
    Passed,
}

/// What the kernel's scan makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The same dialog and number, where the scanner reads them at all.
    Agrees,
    /// Not enough for a dialog's key or a number: it passes as it is.
    Untouched,
}

/// One message.
pub(crate) struct Torture {
    pub(crate) name: &'static str,
    pub(crate) odd: &'static str,
    pub(crate) bytes: &'static [u8],
    /// What the scanner tells.
    pub(crate) read: Result<&'static str, ScanError>,
    pub(crate) fate: Fate,
    /// Whether the server's 200 to it makes a dialog.
    pub(crate) dialog: bool,
    pub(crate) kernel: Kernel,
}

macro_rules! messages {
    ($($section:literal $name:literal: $odd:literal, $read:expr, $fate:ident, $dialog:literal, $kernel:ident;)*) => {
        /// All of them, in the RFC's order.
        pub(crate) const MESSAGES: &[Torture] = &[$(Torture {
            name: concat!($name, " (", $section, ")"),
            odd: $odd,
            bytes: include_bytes!(concat!("messages/", $name, ".sip")),
            read: $read,
            fate: Fate::$fate,
            dialog: $dialog,
            kernel: Kernel::$kernel,
        },)*];
    };
}

messages! {
    "3.1.1.1" "wsinv": "Folds, blanks and case wherever they may stand; the topmost Via has a branch of before RFC 3261.",
        Ok("INVITE sip:vivekg@chair-dnrc.example.com;unknownparam | call wsinv.ndaksdj@192.0.2.1 | \
            from 98asjd8 | to 1918181833n | cseq 9 INVITE | branch 390skdjuw of 3 | \
            contact sip:jdrosen@example.com | body 150"),
        UnknownDialog, true, Agrees;
    "3.1.1.2" "intmeth": "Every byte that a token may have, in the method too; quoted control bytes, UTF-8 in a parameter.",
        Ok("!interesting-Method0123456789_*+`.%indeed\\'~ sip:1_unusual.URI~(to-be!sure)&isn\\'t+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn\\'t-it)@example.com | \
            call intmeth.word%ZK-!.*_+\\'@word`~)(><:\\\\/\\\"][?}{ | from _token~1\\'+`*%!-. | to - | \
            cseq 139122385 OTHER | branch z9hG4bK-.!%66*_+`\\'~ of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.1.3" "esc01": "Percent escapes in URIs; the escaped `lr` of the Contact is a parameter of another name to us.",
        Ok("INVITE sip:sips%3Auser%40example.com@example.net | call esc01.239409asdfakjkn23onasd0-3234 | \
            from 938 | to - | cseq 234234 INVITE | branch z9hG4bKkdjuw of 1 | \
            contact sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31 | body 150"),
        Invite, true, Agrees;
    "3.1.1.4" "escnull": "Escaped NULs in URIs; two Contacts.",
        Ok("REGISTER sip:example.com | call escnull.39203ndfvkjdasfkq3w4otrq0adsfdfnavd | from 839923423 | \
            to - | cseq 14398234 REGISTER | branch z9hG4bKkdjuw of 1 | contact sip:%00@host5.example.com | \
            body none"),
        Passed, false, Agrees;
    "3.1.1.5" "esc02": "Percent signs that escape nothing: the method is not REGISTER, and `C%6Fntact` is no Contact.",
        Ok("RE%47IST%45R sip:registrar.example.com | call esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf | \
            from f232jadfj23 | to - | cseq 29344 OTHER | branch z9hG4bK209%fzsnel234 of 1 | \
            contact sip:alias1@host1.example.com | body none"),
        Passed, false, Agrees;
    "3.1.1.6" "lwsdisp": "No blank between the display name and the bracket.",
        Ok("OPTIONS sip:user@example.com | call lwsdisp.1234abcd@funky.example.com | from 323 | to - | \
            cseq 60 OPTIONS | branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.1.7" "longreq": "Very long names, values and parameters, and 34 Vias.",
        Ok("INVITE sip:user@example.com | \
            call longreq.onereallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallyreallylongcallid | \
            from 12982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982982424 | \
            to - | cseq 3882340 INVITE | branch - of 34 | \
            contact sip:amazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallernameamazinglylongcallername@host5.example.net | \
            body 150"),
        Invite, true, Agrees;
    "3.1.1.8" "dblreq": "A second request behind the first in one datagram: it is not read.",
        Ok("REGISTER sip:example.com | call dblreq.0ha0isndaksdj99sdfafnl3lk233412 | from 43251j3j324 | to - | \
            cseq 8 REGISTER | branch z9hG4bKkdjuw23492 of 1 | contact sip:j.user@host.example.com | body none"),
        Passed, false, Agrees;
    "3.1.1.9" "semiuri": "A semicolon in the user part, which begins no parameter.",
        Ok("OPTIONS sip:user;par=u%40example.net@example.com | call semiuri.0ha0isndaksdj | from 33242 | to - | \
            cseq 8 OPTIONS | branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.1.10" "transports": "Vias with transports that nobody knows.",
        Ok("OPTIONS sip:user@example.com | call transports.kijh4akdnaqjkwendsasfdj | from 323 | to - | \
            cseq 60 OPTIONS | branch z9hG4bKkdjuw of 5 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.1.11" "mpart01": "A multipart body with binary parts.",
        Ok("MESSAGE sip:kumiko@example.org | call 3d9485ad0c49859b@Zmx1ZmZ5LW1hYy0xNi5sb2NhbA.. | \
            from 2fb0dcc9 | to - | cseq 1 MESSAGE | branch z9hG4bK-d87543-4dade06d0bdb11ee-1--d87543- of 1 | \
            contact sip:fluffy@127.0.0.1:5070 | body 553"),
        Passed, false, Agrees;
    "3.1.1.12" "unreason": "A reason phrase in UTF-8: a 200 to an INVITE that was never seen.",
        Ok("200 74 bytes of reason | call unreason.1234ksdfak3j2erwedfsASdf | from 11141343 | to 2229 | \
            cseq 35 INVITE | branch z9hG4bK1324923 of 1 | contact sip:user@host198.example.com | body 154"),
        UnknownDialog, false, Agrees;
    "3.1.1.13" "noreason": "A status line that ends with a blank and has no phrase.",
        Ok("100 0 bytes of reason | call noreason.asndj203insdf99223ndf | from 39ansfi3 | to 902jndnke3 | \
            cseq 35 INVITE | branch z9hG4bK2398ndaoe of 1 | contact sip:user@host105.example.com | body none"),
        Passed, false, Agrees;
    "3.1.2.1" "badinv01": "Stray commas and semicolons in Via and Contact: no branch.",
        Ok("INVITE sip:user@example.com | call badinv01.0ha0isndaksdjasdf3234nas | from 134161461246 | to - | \
            cseq 8 INVITE | branch - of 2 | contact sip:joe@example.org | body 152"),
        Invite, true, Agrees;
    "3.1.2.2" "clerr": "Content-Length is more than there is: the body counts as cut.",
        Ok("INVITE sip:user@example.com | call clerr.0ha0isndaksdjweiafasdk3 | from 93942939o2 | to - | \
            cseq 8 INVITE | branch z9hG4bK-39234-23523 of 1 | contact sip:caller@hungry.example.net | body cut"),
        Invite, true, Agrees;
    "3.1.2.3" "ncl": "A negative Content-Length: the body counts as cut. The CSeq number is 0.",
        Ok("INVITE sip:user@example.com | call ncl.0ha0isndaksdj2193423r542w35 | from 32394234 | to - | \
            cseq 0 INVITE | branch z9hG4bKkdjuw of 1 | contact sip:caller@example53.example.net | body cut"),
        Invite, true, Agrees;
    "3.1.2.4" "scalar02": "A CSeq number of 2^65: no transaction.",
        Ok("REGISTER sip:example.com | call scalar02.23o0pd9vanlq3wnrlnewofjas9ui32 | from 239232jh3 | to - | \
            cseq - | branch z9hG4bK342sdfoi3 of 1 | contact sip:user@host129.example.com | body none"),
        Unidentified, false, Untouched;
    "3.1.2.5" "scalarlg": "A response with a CSeq number of 22 digits.",
        Ok("503 19 bytes of reason | call scalarlg.noase0of0234hn2qofoaf0232aewf2394r | from 2easdjfejw | \
            to - | cseq - | branch z9hG4bKzzxdiwo34sw of 1 | contact - | body none"),
        Unidentified, false, Untouched;
    "3.1.2.6" "quotbal": "A quote in To that is never closed.",
        Ok("INVITE sip:user@example.com | call quotbal.aksdj | from 93334 | to - | cseq 8 INVITE | \
            branch z9hG4bKkdjuw39234 of 1 | contact sip:caller@host59.example.net | body 152"),
        Invite, true, Agrees;
    "3.1.2.7" "ltgtruri": "Brackets around the Request-URI; a Via without a branch.",
        Ok("INVITE <sip:user@example.com> | call ltgtruri.1@192.0.2.5 | from 39291 | to - | cseq 1 INVITE | \
            branch - of 1 | contact sip:caller@host5.example.net | body 159"),
        Invite, true, Agrees;
    "3.1.2.8" "lwsruri": "A blank in the Request-URI; it has a To tag, and the number is just below 2^31.",
        Ok("INVITE sip:user@example.com; lr | call lwsruri.asdfasdoeoi2323-asdfwrn23-asd834rk423 | \
            from 231413434 | to 3xfe-9921883-z9f | cseq 2130706432 INVITE | branch z9hG4bKkdjuw2395 of 1 | \
            contact sip:caller@host1.example.net | body 159"),
        UnknownDialog, true, Agrees;
    "3.1.2.9" "lwsstart": "Two blanks between the parts of the request line.",
        Ok("INVITE sip:user@example.com | call lwsstart.dfknq234oi243099adsdfnawe3@example.com | from 8814 | \
            to - | cseq 1893884 INVITE | branch z9hG4bKkdjuw3923 of 1 | contact sip:caller@host1.example.net | \
            body 150"),
        Invite, true, Agrees;
    "3.1.2.10" "trws": "Blanks at the end of the request line.",
        Ok("OPTIONS sip:remote-target@example.com | call trws.oicu34958239neffasdhr2345r | from 329429089 | \
            to - | cseq 238923 OPTIONS | branch z9hG4bK299342093 of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.2.11" "escruri": "Headers in the Request-URI.",
        Ok("INVITE sip:user@example.com?Route=%3Csip:example.com%3E | \
            call escruri.23940-asdfhj-aje3br-234q098w-fawerh2q-h4n5 | from 341518 | to - | \
            cseq 149209342 INVITE | branch z9hG4bKkdjuw of 1 | contact sip:caller@host39923.example.net | \
            body 150"),
        Invite, true, Agrees;
    "3.1.2.12" "baddate": "A Date that is not GMT, which nobody here reads.",
        Ok("INVITE sip:user@example.com | call baddate.239423mnsadf3j23lj42--sedfnm234 | from 2234923 | to - | \
            cseq 1392934 INVITE | branch z9hG4bKkdjuw of 1 | contact sip:caller@host5.example.net | body 150"),
        Invite, true, Agrees;
    "3.1.2.13" "regbadct": "A Contact with URI headers and no brackets.",
        Ok("REGISTER sip:example.com | call regbadct.k345asrl3fdbv@10.0.0.1 | from 998332 | to - | \
            cseq 1 REGISTER | branch z9hG4bKkdjuw of 1 | \
            contact sip:user@example.com?Route=%3Csip:sip.example.com%3E | body none"),
        Passed, false, Agrees;
    "3.1.2.14" "badaspec": "Blanks inside the brackets of To.",
        Ok("OPTIONS sip:user@example.org | call badaspec.sdf0234n2nds0a099u23h3hnnw009cdkne3 | from 433423 | \
            to - | cseq 3923239 OPTIONS | branch z9hG4bKkdju43234 of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.2.15" "baddn": "Commas in display names without quotes; the blank line at the end is missing.",
        Ok("OPTIONS sip:t.watson@example.org | call baddn.31415@c.example.com | from 43 | to - | \
            cseq 3923239 OPTIONS | branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.1.2.16" "badvers": "SIP/7.0.",
        Err(ScanError::Version),
        Unparsable, false, Agrees;
    "3.1.2.17" "mismatch01": "The CSeq method is another than the request's.",
        Ok("OPTIONS sip:user@example.com | call mismatch01.dj0234sxdfl3 | from 34525 | to - | cseq 8 INVITE | \
            branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Unidentified, false, Agrees;
    "3.1.2.18" "mismatch02": "The same with a method that nobody knows.",
        Ok("NEWMETHOD sip:user@example.com | call mismatch02.dj0234sxdfl3 | from 34525 | to - | cseq 8 INVITE | \
            branch z9hG4bKkdjuw of 1 | contact sip:caller@host.example.net | body 138"),
        Unidentified, false, Agrees;
    "3.1.2.19" "bigcode": "A status above 2^32.",
        Err(ScanError::Status),
        Unparsable, false, Agrees;
    "3.2.1" "badbranch": "A branch that is the cookie and nothing else.",
        Ok("OPTIONS sip:user@example.com | call badbranch.sadonfo23i420jv0as0derf3j3n | from 33242 | to - | \
            cseq 8 OPTIONS | branch z9hG4bK of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.1" "insuf": "No Call-ID, From or To.",
        Ok("INVITE sip:user@example.com | call - | from - | to - | cseq 193942 INVITE | \
            branch z9hG4bKkdj.insuf of 1 | contact - | body 152"),
        Unidentified, false, Untouched;
    "3.3.2" "unkscm": "A Request-URI of a scheme that nobody knows.",
        Ok("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent | call unkscm.nasdfasser0q239nwsdfasdkl34 | \
            from 384 | to - | cseq 3923423 OPTIONS | branch z9hG4bKkdjuw39234 of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.3" "novelsc": "A Request-URI of a scheme that is not SIP's.",
        Ok("OPTIONS soap.beep://192.0.2.103:3002 | call novelsc.asdfasser0q239nwsdfasdkl34 | from 384 | to - | \
            cseq 3923423 OPTIONS | branch z9hG4bKkdjuw39234 of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.4" "unksm2": "Other schemes in To, From and Contact.",
        Ok("REGISTER sip:example.com | call unksm2.daksdj@hyphenated-host.example.com | from 3234233 | to - | \
            cseq 234902 REGISTER | branch z9hG4bKkdjuw of 1 | contact name:John_Smith | body none"),
        Passed, false, Agrees;
    "3.3.5" "bext01": "Extensions that nobody supports are required.",
        Ok("OPTIONS sip:user@example.com | call bext01.0ha0isndaksdj | from 242etr | to - | cseq 8 OPTIONS | \
            branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.6" "invut": "A body of an unknown type: whole, and no SDP.",
        Ok("INVITE sip:user@example.com | call invut.0ha0isndaksdjadsfij34n23d | from 8392034 | to - | \
            cseq 235448 INVITE | branch z9hG4bKkdjuw of 1 | contact sip:caller@host5.example.net | body 40"),
        Invite, true, Agrees;
    "3.3.7" "regaut01": "An unknown authorization scheme.",
        Ok("REGISTER sip:example.com | call regaut01.0ha0isndaksdj | from 87321hj23128 | to - | \
            cseq 9338 REGISTER | branch z9hG4bKkdjuw of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.8" "multi01": "Call-ID, CSeq, From, To and Contact twice: the first of each counts.",
        Ok("INVITE sip:user@company.com | call multi01.98asdh@192.0.2.1 | from 3413415 | to - | cseq 5 INVITE | \
            branch z9hG4bKkdjuw of 1 | contact sip:caller@host25.example.net | body 154"),
        Invite, true, Agrees;
    "3.3.9" "mcl01": "Two Content-Lengths that differ: the body counts as cut.",
        Ok("OPTIONS sip:user@example.com | call mcl01.fhn2323orihawfdoa3o4r52o3irsdf | from 3923942 | to - | \
            cseq 15932 OPTIONS | branch z9hG4bK293423 of 1 | contact - | body cut"),
        Passed, false, Agrees;
    "3.3.10" "bcast": "A 200 to an INVITE that was never seen, by way of the broadcast address.",
        Ok("200 2 bytes of reason | call bcast.0384840201234ksdfak3j2erwedfsASdf | from 11141343 | to 2229 | \
            cseq 35 INVITE | branch z9hG4bK1324923 of 2 | contact sip:user@host28.example.com | body 154"),
        UnknownDialog, false, Agrees;
    "3.3.11" "zeromf": "Max-Forwards of 0.",
        Ok("OPTIONS sip:user@example.com | call zeromf.jfasdlfnm2o2l43r5u0asdfas | from 3ghsd41 | to - | \
            cseq 39234321 OPTIONS | branch z9hG4bKkdjuw2349i of 1 | contact - | body none"),
        Passed, false, Agrees;
    "3.3.12" "cparam01": "A parameter behind a Contact without brackets: the header's, not the URI's.",
        Ok("REGISTER sip:example.com | call cparam01.70710@saturn.example.com | from DkfVgjkrtMwaerKKpe | \
            to - | cseq 2 REGISTER | branch z9hG4bKkdjuw of 1 | contact sip:+19725552222@gw1.example.net | \
            body none"),
        Passed, false, Agrees;
    "3.3.13" "cparam02": "The same within brackets: the URI's.",
        Ok("REGISTER sip:example.com | call cparam02.70710@saturn.example.com | from 838293 | to - | \
            cseq 3 REGISTER | branch z9hG4bKkdjuw of 1 | \
            contact sip:+19725552222@gw1.example.net;unknownparam | body none"),
        Passed, false, Agrees;
    "3.3.14" "regescrt": "An escaped header in the URI of a Contact.",
        Ok("REGISTER sip:example.com | call regescrt.k345asrl3fdbv@192.0.2.1 | from 8 | to - | \
            cseq 14398234 REGISTER | branch z9hG4bKkdjuw of 1 | \
            contact sip:user@example.com?Route=%3Csip:sip.example.com%3E | body none"),
        Passed, false, Agrees;
    "3.3.15" "sdp01": "An Accept that no SDP satisfies, which nobody here reads.",
        Ok("INVITE sip:user@example.com | call sdp01.ndaksdj9342dasdd | from 234 | to - | cseq 8 INVITE | \
            branch z9hG4bKkdjuw of 1 | contact sip:caller@host15.example.net | body 150"),
        Invite, true, Agrees;
    "3.4.1" "inv2543": "RFC 2543: no From tag, no branch, no Content-Length.",
        Ok("INVITE sip:UserB@example.com | call inv2543.1717@ift.client.example.com | from - | to - | \
            cseq 56 INVITE | branch - of 1 | contact - | body 105"),
        Unidentified, false, Untouched;
    "appendix A" "test": "In the archive alone: a request line without a version.",
        Err(ScanError::StartLine),
        Unparsable, false, Untouched;
}
