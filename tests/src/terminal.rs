//! A program in a terminal of its own: what it draws is read as a person would see it, and keys are pressed.

use crate::wait;
use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::Pid,
};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZeroU16,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

/// A terminal with a program in it, which is killed when this is dropped.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// Kept open, so that its settings outlive the program.
    tty: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts `command` in a terminal of that many columns and rows.
    ///
    /// # Panics
    /// If the system has no terminal to give, or the program does not start.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a terminal");
        let before = tcgetattr(&pair.slave).expect("its settings");
        let tty = || pair.slave.try_clone().expect("a second handle");
        // util-linux's setsid(1) becomes the program: a session of its own, with this terminal instead of the one in
        // which the test itself may run.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "xterm-256color").stdin(tty()).stdout(tty()).stderr(tty());
        let child = session.spawn().expect("setsid(1) of util-linux");
        let of = |count: u16| NonZeroU16::new(count).expect("a terminal has columns and rows");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(of(rows), of(columns), 0)));
        let mut output = File::from(pair.master.try_clone().expect("a second handle"));
        let seen = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The other end is closed: an error.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        let keyboard = File::from(pair.master);
        Self { child, keyboard, tty: pair.slave, before, screen, reader: Some(reader) }
    }

    fn look<R>(&self, look: impl FnOnce(&vt100::Screen) -> R) -> R {
        look(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// What is seen.
    pub fn text(&self) -> String {
        self.look(vt100::Screen::contents)
    }

    /// Whether any cell has a colour.
    pub fn is_coloured(&self) -> bool {
        self.look(|screen| {
            let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
            let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            cells.filter_map(|(row, column)| screen.cell(row, column)).any(|cell| {
                cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default
            })
        })
    }

    /// Waits until `text` is seen; gives all that is seen then.
    ///
    /// # Panics
    /// If the program ends before.
    pub fn shows(&mut self, text: &str) -> String {
        wait::until(text, || {
            let seen = self.text();
            if seen.contains(text) {
                return Some(seen);
            }
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("it ended with {status} and never showed {text:?}:\n{seen}");
            }
            None
        })
    }

    /// Presses keys.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the program has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("the system's process ids"));
        kill(pid, signal).expect("it lives");
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Panics
    /// If it never does.
    pub fn ended(&mut self) -> ExitStatus {
        wait::until("the program ends", || self.child.try_wait().expect("a child"))
    }

    /// Whether the terminal is as it was before the program: its settings, its first screen, its cursor.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn is_restored(&self) -> bool {
        let now = tcgetattr(&self.tty).expect("its settings");
        let settings = |termios: &Termios| {
            (termios.local_flags, termios.input_flags, termios.output_flags, termios.control_flags)
        };
        settings(&now) == settings(&self.before)
            && self.look(|screen| !screen.alternate_screen() && !screen.hide_cursor())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error means that it has ended by itself.
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the terminal shows:\n{}", self.text());
        }
        // Ends once this end of the terminal is closed as well.
        drop(self.reader.take());
    }
}
