//! A large sweep, 10,000 trials of 1,000 points, as people look at it: the web page's calls, the page in a browser, `results`, `top`.

use crate::{
    Scale,
    figures::{Figures, Target, median},
    service::{Agents, Service},
};
use anyhow::Context as _;
use spotsweep_tests::{binaries, terminal::Terminal};
use spotsweep_worker::NoopTrainers;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Instant,
};

/// Trials of the sweep.
const TRIALS: u32 = 10_000;
/// Points that each reports.
const POINTS: u32 = 1000;
/// Agents that run it.
const AGENTS: u32 = 8;
/// Its name.
const SWEEP: &str = "bench";
/// Calls of each kind; the median and the worst are told.
const CALLS: usize = 9;
/// What an answer should take at most, in milliseconds.
const WANTED_MS: f64 = 200.0;

/// What the page asks when a sweep is opened, besides the list.
const PATHS: [(&str, &str); 7] = [
    ("list of sweeps", "/api/v1/sweeps"),
    ("the sweep", "/api/v1/sweeps/bench"),
    ("first rows of the table", "/api/v1/sweeps/bench/trials?limit=100"),
    ("table sorted by a parameter", "/api/v1/sweeps/bench/trials?limit=100&sort=-params.seed"),
    (
        "2,000 rows of 4 columns",
        "/api/v1/sweeps/bench/trials?limit=2000&columns=number,state,params.seed,loss",
    ),
    ("50 curves, 200 points", "/api/v1/sweeps/bench/curves?metric=loss&limit=50&points=200"),
    ("importance", "/api/v1/sweeps/bench/importance?metric=loss"),
];

/// Milliseconds to the end of the answer.
fn call(address: SocketAddr, path: &str) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    anyhow::ensure!(head.ends_with(b"200 OK"), "{path}: {}", String::from_utf8_lossy(&answer));
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// All of it, on one sweep.
pub(crate) fn looks(
    scale: Scale,
    runtime: &tokio::runtime::Runtime,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut service = runtime.block_on(async {
        let mut service = Service::start().await?;
        let trainers = NoopTrainers::new().with_reports(u64::from(POINTS));
        let running = Agents::start(&service.url(), AGENTS, &trainers)?;
        running.joined(&service).await?;
        service.sweep_of_nothing(scale.of(TRIALS)).await?;
        running.stop().await;
        anyhow::Ok(service)
    })?;
    runtime.block_on(answers(&mut service, figures))?;
    terminal(&service, figures)?;
    #[cfg(feature = "browser")]
    page(service.page_address()?, figures);
    #[cfg(not(feature = "browser"))]
    eprintln!("skipped: the page in a browser (--features spotsweep-tests/browser)");
    Ok(())
}

/// Each call first on a coordinator that has just started, with nothing of the sweep in memory, then again and again.
async fn answers(service: &mut Service, figures: &mut Figures) -> anyhow::Result<()> {
    for (what, path) in PATHS {
        service.kill()?;
        service.restart().await?;
        let address = service.page_address()?;
        let first = call(address, path)?;
        let target = Some(Target::AtMost(WANTED_MS));
        figures.add(format!("web: {what}, the first after a start"), first, "ms", target);
        let mut times: Vec<f64> = (0..CALLS).map(|_| call(address, path)).collect::<Result<_, _>>()?;
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[CALLS / 2], *times.last().context("some calls")?);
        figures.add(format!("web: {what}, median"), median, "ms", target);
        figures.add(format!("web: {what}, worst"), worst, "ms", target);
    }
    Ok(())
}

/// Whole commands: `results` to its end, `top` to its first whole screen.
fn terminal(service: &Service, figures: &mut Figures) -> anyhow::Result<()> {
    let command = |arguments: &[&str]| {
        let mut command = Command::new(binaries::spotsweep());
        command.args(arguments).env("SPOTSWEEP_COORDINATOR", service.url()).stdin(Stdio::null());
        command
    };
    let mut seconds = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        let output = command(&["results", SWEEP]).output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        seconds.push(start.elapsed().as_secs_f64());
    }
    figures.add("results, the whole table, median", median(seconds), "s", Some(Target::AtMost(0.5)));
    let start = Instant::now();
    let mut top = Terminal::start(&command(&["top"]), 120, 40);
    let _screen = top.shows(SWEEP);
    figures.add("top, to the sweep's line", start.elapsed().as_secs_f64(), "s", None);
    top.press("q");
    Ok(())
}

/// From the address to the drawn page, table and curves.
#[cfg(feature = "browser")]
fn page(address: SocketAddr, figures: &mut Figures) {
    const DRAWN: &str = "return document.querySelectorAll('#table tr[data-number]').length > 10 \
        && Number(document.querySelector('#curves')?.dataset.points ?? 0) > 0 \
        && document.querySelector('#curves canvas') !== null && document.readyState === 'complete'";
    let browser = spotsweep_tests::browser::Browser::start();
    browser.look(1280, 900, "light");
    let mut seconds = Vec::new();
    for _ in 0..CALLS {
        browser.open("about:blank");
        let start = Instant::now();
        browser.open(&format!("http://{address}/#/sweep/{SWEEP}"));
        browser.until("the page is drawn", DRAWN);
        seconds.push(start.elapsed().as_secs_f64());
    }
    figures.add("web: the sweep's page drawn, median", median(seconds), "s", Some(Target::AtMost(2.0)));
}
