//! A bad network: a TCP proxy on loopback whose traffic can be held in either direction, refused, broken off and healed.
//!
//! It must not know what passes through. Where it points at may be away and come back: each connection is made anew.

use crate::wait;
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

/// Whoever does not take a connection within this is taken for absent.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Most bytes of each direction of a connection that are in the proxy's own hands.
const BUFFER_BYTES: usize = 64 << 10;

/// What becomes of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// It passes.
    #[default]
    Clear,
    /// What clients say is held.
    HoldsUp,
    /// What clients are told is held.
    HoldsDown,
    /// Both are held: new connections are taken, and hear nothing.
    HoldsBoth,
    /// Connections are broken off, and new ones as soon as they are made.
    Refuses,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Weather {
    fn holds(self, way: Way) -> bool {
        match (self, way) {
            (Self::HoldsBoth, _) | (Self::HoldsUp, Way::Up) | (Self::HoldsDown, Way::Down) => true,
            (Self::Clear | Self::HoldsUp | Self::HoldsDown | Self::Refuses, _) => false,
        }
    }
}

#[derive(Default)]
struct State {
    weather: Weather,
    /// Both ends of every connection since the last time that all were broken off.
    connections: Vec<TcpStream>,
    /// Counts how often all were broken off.
    generation: u64,
    closed: bool,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics")
    }

    fn break_off(&self, state: &mut State) {
        for connection in state.connections.drain(..) {
            // An error means that it has ended already.
            let _ended = connection.shutdown(Shutdown::Both);
        }
        state.generation += 1;
        self.changed.notify_all();
    }
}

/// The proxy; its port and its connections go when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// On a free port, in front of whoever listens on `target`.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { target, state: Mutex::default(), changed: Condvar::new() });
        let proxy = Self { address, shared: shared.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.state().closed {
                    return;
                }
                let shared = shared.clone();
                // Whoever is away is one connection less; the client sees its end.
                std::thread::spawn(move || connect(&client, &shared));
            }
        });
        proxy
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather. What was held goes on its way where it is held no more.
    pub fn set(&self, weather: Weather) {
        let mut state = self.shared.state();
        state.weather = weather;
        if weather == Weather::Refuses {
            self.shared.break_off(&mut state);
        }
        self.shared.changed.notify_all();
    }

    /// Breaks all connections off; what was held of them is lost. New ones are taken as the weather allows.
    pub fn break_off(&self) {
        self.shared.break_off(&mut self.shared.state());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.weather = Weather::Refuses;
        self.shared.break_off(&mut state);
        drop(state);
        // So that the thread that listens looks.
        let _woken = TcpStream::connect_timeout(&self.address, wait::DEADLINE);
    }
}

fn connect(client: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let server = TcpStream::connect_timeout(&shared.target, CONNECT_LIMIT)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    let (client, server) = (client.try_clone()?, server);
    let generation = {
        let mut state = shared.state();
        if state.weather == Weather::Refuses {
            return Ok(());
        }
        state.connections.push(client.try_clone()?);
        state.connections.push(server.try_clone()?);
        state.generation
    };
    let (up_from, up_to) = (client.try_clone()?, server.try_clone()?);
    let sharing = shared.clone();
    std::thread::spawn(move || carry(up_from, up_to, Way::Up, generation, &sharing));
    carry(server, client, Way::Down, generation, shared);
    Ok(())
}

/// Carries one direction of a connection to its end.
fn carry(mut from: TcpStream, mut to: TcpStream, way: Way, generation: u64, shared: &Shared) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // A connection that breaks is one that ended.
        let count = from.read(&mut buffer).unwrap_or(0);
        let held = |state: &mut State| state.generation == generation && state.weather.holds(way);
        let state = shared.changed.wait_while(shared.state(), held).expect("no thread of the proxy panics");
        let broken = state.generation != generation;
        drop(state);
        if broken || count == 0 || to.write_all(&buffer[..count]).is_err() {
            // One end that is gone is the end of both, as for a process that was killed.
            let _ended = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// Sends back every byte of every connection.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        address
    }

    fn says(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_all(&[byte])?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let outcome = stream.read(&mut [0]);
        stream.set_read_timeout(None).unwrap();
        matches!(outcome.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    #[test]
    fn what_is_held_in_either_direction_arrives_once_it_heals() {
        let proxy = Proxy::start(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(says(&mut stream, 1).unwrap(), 1);
        for (byte, weather) in (2..).zip([Weather::HoldsUp, Weather::HoldsDown, Weather::HoldsBoth]) {
            proxy.set(weather);
            stream.write_all(&[byte]).unwrap();
            assert!(is_silent(&mut stream), "{weather:?}");
            proxy.set(Weather::Clear);
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [byte], "{weather:?}");
        }
    }

    #[test]
    fn what_is_broken_off_or_refused_ends_and_new_connections_live_once_it_heals() {
        let proxy = Proxy::start(echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(says(&mut stream, 1).unwrap(), 1);
        proxy.set(Weather::HoldsBoth);
        stream.write_all(&[2]).unwrap();
        proxy.break_off();
        assert_ne!(stream.read(&mut [0]).ok(), Some(1));
        proxy.set(Weather::Refuses);
        // Taken by the system, and ended before it says a word.
        let mut refused = TcpStream::connect(proxy.address()).unwrap();
        assert!(says(&mut refused, 3).is_err());
        proxy.set(Weather::Clear);
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(says(&mut stream, 4).unwrap(), 4);
    }
}
