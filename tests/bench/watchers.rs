//! What people who look cost those who work: reports a second with ten browsers on the sweep's page and without any, by turns.
//!
//! A watcher does what the page does (`coordinator/src/http/assets/view-sweep.js`): it follows the events, and asks for the
//! sweep and its table at most every 1.5 s, for curves, lines, points and importance at most every 2.5 s, side by side.

use crate::{
    Scale,
    figures::{Figures, Target, median},
    service::{Agents, Service},
};
use spotsweep_worker::NoopTrainers;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Browsers.
const WATCHERS: u32 = 10;
/// Agents.
const AGENTS: u32 = 8;
/// Trials of each sweep.
const TRIALS: u32 = 150;
/// Reports of each trial.
const REPORTS_PER_TRIAL: u32 = 10_000;
/// Pairs of sweeps, one watched and one not; the median counts.
const PAIRS: u32 = 5;
/// What the intake should keep, watched beside unwatched.
const WANTED: f64 = 0.9;
/// How often the page asks at most, as it does.
const HEAD_EVERY: Duration = Duration::from_millis(1500);
const CHARTS_EVERY: Duration = Duration::from_millis(2500);

/// What is asked with each event, and what with every other.
const HEAD: [&str; 2] = ["", "/trials?limit=100&columns=number,state,steps,attempts,seconds,params.seed"];
const CHARTS: [&str; 4] = [
    "/curves?metric=loss&limit=50&points=200",
    "/trials?limit=2000&columns=number,state,params.seed,loss",
    "/trials?limit=2000&columns=number,state,params.seed,loss&sort=-loss",
    "/importance?metric=loss",
];

/// The watchers of one sweep.
struct Watchers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answers: Arc<AtomicU64>,
}

impl Watchers {
    fn start(address: SocketAddr, sweep: &str) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..WATCHERS).map(|_| {
            let (stop, answers, sweep) = (stop.clone(), answers.clone(), sweep.to_owned());
            std::thread::spawn(move || {
                // Refused until the sweep is there, and at the end of the coordinator.
                while !stop.load(Ordering::Relaxed) {
                    let _ended = watch(address, &sweep, &stop, &answers);
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        });
        Self { threads: threads.collect(), stop, answers }
    }

    /// Ends them; gives how many calls were answered.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _panicked = thread.join();
        }
        self.answers.load(Ordering::Relaxed)
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Asks all of these side by side, as a browser does.
fn ask(address: SocketAddr, sweep: &str, parts: &[&str], answers: &AtomicU64) {
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(move || {
                let mut answer = Vec::new();
                let path = format!("/api/v1/sweeps/{sweep}{part}");
                let got = get(address, &path).and_then(|mut stream| stream.read_to_end(&mut answer));
                if got.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

fn watch(address: SocketAddr, sweep: &str, stop: &AtomicBool, answers: &AtomicU64) -> std::io::Result<()> {
    let stream = get(address, &format!("/api/v1/events?sweep={sweep}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200") {
        return Ok(());
    }
    let long_ago = Instant::now().checked_sub(CHARTS_EVERY).unwrap_or_else(Instant::now);
    let (mut head, mut charts) = (long_ago, long_ago);
    while !stop.load(Ordering::Relaxed) {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if !line.starts_with("event: changed") => continue,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if head.elapsed() >= HEAD_EVERY {
            head = Instant::now();
            ask(address, sweep, &HEAD, answers);
        }
        if charts.elapsed() >= CHARTS_EVERY {
            charts = Instant::now();
            ask(address, sweep, &CHARTS, answers);
        }
    }
    Ok(())
}

/// Reports a second, unwatched and watched, and the ratio of each pair.
pub(crate) async fn cost(scale: Scale, figures: &mut Figures) -> anyhow::Result<()> {
    let mut service = Service::start().await?;
    let trainers = NoopTrainers::new().with_reports(u64::from(REPORTS_PER_TRIAL));
    let running = Agents::start(&service.url(), AGENTS, &trainers)?;
    running.joined(&service).await?;
    service.sweep_of_nothing(AGENTS).await?;
    let address = service.page_address()?;
    let trials = scale.of(TRIALS);
    let reports = f64::from(trials) * f64::from(REPORTS_PER_TRIAL);
    let (mut rates, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    let mut sweeps = 1;
    let mut answered = 0;
    for pair in 0..PAIRS {
        let mut seconds = [0.0; 2];
        // Which comes first changes, for the journal grows.
        for turn in 0..2 {
            let watched = (pair + turn) % 2;
            sweeps += 1;
            let watchers = (watched == 1).then(|| Watchers::start(address, &format!("bench-{sweeps}")));
            let took = service.sweep_of_nothing(trials).await?;
            answered += watchers.map_or(0, Watchers::stop);
            if let (Some(place), Some(rates)) =
                (seconds.get_mut(watched as usize), rates.get_mut(watched as usize))
            {
                *place = took;
                rates.push(reports / took);
            }
        }
        ratios.push(seconds[0] / seconds[1]);
    }
    running.stop().await;
    anyhow::ensure!(answered > 0, "the watchers saw something");
    let [unwatched, watched] = rates;
    figures.add("reports/s, nobody watches", median(unwatched), "/s", None);
    figures.add(format!("reports/s, {WATCHERS} browsers watch"), median(watched), "/s", None);
    figures.add("calls of the page answered meanwhile", answered as f64, "", None);
    figures.add("intake watched, of unwatched", median(ratios), "", Some(Target::AtLeast(WANTED)));
    Ok(())
}
