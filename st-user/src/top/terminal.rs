//! The terminal: taken over, drawn, listened to, and put back as it was, however it ends.

use std::{
    io::{stdin, stdout},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ratatui::{
    DefaultTerminal,
    crossterm::{
        cursor::Show,
        event::{self, Event},
        execute,
    },
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
    low_level::emulate_default_handler,
};

use super::{
    draw::draw,
    look::Look,
    source::Source,
    state::{After, Screen},
};

/// How long keys are waited for before time goes on upon the screen.
const TICK: Duration = Duration::from_millis(100);

/// What ends a program that does not say otherwise.
const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The terminal is put back when this goes, with whatever error; the hook that ratatui sets sees to panics.
struct Taken(DefaultTerminal);

impl Taken {
    fn take() -> Result<Self> {
        ratatui::try_init().map(Self).context("cannot take over the terminal")
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Once is enough: a second time would put the cursor onto what the panic said.
        if !std::thread::panicking() {
            ratatui::restore();
            let _ = execute!(stdout(), Show);
        }
    }
}

/// Waits for keys, and tells whether there is still a terminal: of one that has hung up crossterm reads nothing for ever.
fn is_there(wait: Duration) -> Result<bool> {
    let stdin = stdin();
    let mut waited = [PollFd::new(&stdin, PollFlags::IN)];
    let wait = Timespec::try_from(wait).context("cannot wait so long")?;
    match poll(&mut waited, Some(&wait)) {
        // A signal, or another size.
        Ok(_) | Err(Errno::INTR) => Ok(!waited[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)),
        Err(error) => Err(error).context("cannot read the terminal"),
    }
}

/// Shows the screen until somebody quits.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) fn run(mut screen: Screen, look: Look, source: Source) -> Result<()> {
    let signal = Arc::new(AtomicUsize::new(0));
    for number in SIGNALS {
        flag::register_usize(number, Arc::clone(&signal), number as usize).context("cannot wait for signals")?;
    }
    let began = Instant::now();
    let (want, told) = source.start().context("cannot start a thread")?;
    let mut taken = Taken::take()?;
    let mut asked = None;
    loop {
        for said in told.try_iter() {
            screen.take(said, began.elapsed());
        }
        let wanted = screen.wanted();
        if asked.as_ref() != Some(&wanted) {
            // The thread is there as long as this is.
            let _ = want.send(wanted.clone());
            asked = Some(wanted);
        }
        let draws = taken.0.draw(|frame| draw(&mut screen, began.elapsed(), look, frame.buffer_mut()));
        draws.context("cannot draw")?;
        let mut wait = TICK;
        loop {
            match signal.load(Relaxed) {
                0 => {}
                number => {
                    drop(taken);
                    // Whoever sent it is told that it did what it does.
                    emulate_default_handler(number as i32).context("cannot end by the signal")?;
                    return Ok(());
                }
            }
            if !is_there(wait)? {
                bail!("the terminal is gone");
            }
            if !event::poll(Duration::ZERO).context("cannot read the terminal")? {
                break;
            }
            match event::read().context("cannot read the terminal")? {
                Event::Key(key) => match screen.key(key, began.elapsed()) {
                    After::GoOn => {}
                    After::Afresh => taken.0.clear().context("cannot draw")?,
                    After::Quit => return Ok(()),
                },
                Event::Resize(..) => {}
                Event::FocusGained | Event::FocusLost | Event::Mouse(_) | Event::Paste(_) => {}
            }
            // Keys that have come in meanwhile are all taken before it is drawn.
            wait = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        io::Read as _,
        os::unix::ffi::OsStrExt as _,
        process::{Command, Stdio},
        thread,
    };

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{Winsize, tcgetattr, tcsetwinsize},
    };

    use ratatui::style::Style;

    use super::*;

    const PANIC: &str = "as nothing should";

    /// Set where the test runs itself at a terminal of its own.
    const AT_A_TERMINAL: &str = "SIPST_TEST_AT_A_TERMINAL";

    fn takes_the_terminal_and_panics() -> ! {
        let mut taken = Taken::take().unwrap();
        taken.0.draw(|frame| frame.buffer_mut().set_string(0, 0, "taken", Style::new())).unwrap();
        panic!("{PANIC}");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_says_what_is_wrong() {
        if env::var_os(AT_A_TERMINAL).is_some() {
            takes_the_terminal_and_panics();
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || {
            let path = std::ffi::OsStr::from_bytes(name.to_bytes());
            fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
        };
        let terminal = open();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        let this = "top::terminal::tests::a_panic_gives_the_terminal_back_before_it_says_what_is_wrong";
        command.args(["--exact", "--nocapture", this]).env(AT_A_TERMINAL, "1");
        command.env("RUST_BACKTRACE", "0").stdin(open()).stdout(open()).stderr(Stdio::from(open()));
        let mut child = command.spawn().unwrap();
        // It has the terminal open too.
        drop(command);
        let reader = thread::spawn(move || {
            let (mut said, mut master) = (Vec::new(), fs::File::from(master));
            // It ends with an error once nobody has the other side.
            let _ = master.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        let after = tcgetattr(&terminal).unwrap();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
        drop(terminal);
        let said = reader.join().unwrap();
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said:?}"));
        assert!(at("\u{1b}[?1049h") < at("taken") && at("taken") < at("\u{1b}[?1049l"), "{said:?}");
        assert!(at("\u{1b}[?1049l") < at(PANIC), "{said:?}");
        assert_eq!(said.matches("\u{1b}[?1049l").count(), 1, "{said:?}");
    }
}
