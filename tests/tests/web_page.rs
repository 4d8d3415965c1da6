//! The web page in a real browser, on a real coordinator with real workers that are killed.
//!
//! SPOTSWEEP_SCREENSHOTS=DIR keeps the pictures that it takes; those of docs/ are made so.

use serde_json::{Value, json};
use spotsweep_tests::{Cluster, Trainer, browser::Browser, wait};
use std::path::PathBuf;
use thirtyfour::Key;

/// Half a dozen seconds a trial, so that there is time to look at it and to interrupt it.
const SWEEP: &str = "
name: page
description: 'Rates and widths <img src=x onerror=\"window.hacked=1\"> \u{202e}drawn at random'
method: random
run_cap: 60
metric: {name: val_loss, goal: minimize}
parameters:
  model: {value: mlp}
  learning_rate: {distribution: log_uniform_values, min: 0.003, max: 0.3}
  momentum: {min: 0.0, max: 0.9}
  batch_size: {values: [32, 64, 128]}
train: {data: fashion-mnist, epochs: 12, seed: 1}
checkpoint: {every_steps: 100}
";

struct Pictures(PathBuf);

impl Pictures {
    fn take(&self, browser: &Browser, name: &str, (width, height): (u32, u32), colours: &str) {
        browser.look(width, height, colours);
        // Charts draw themselves anew for the new size and colours: two frames later they have.
        browser.script("scrollTo(0, 0); window.framed = 0; requestAnimationFrame(() => requestAnimationFrame(() => (window.framed = 1)))");
        browser.until("the page is drawn", "return window.framed");
        browser.screenshot(&self.0.join(format!("web-{name}.png")));
    }
}

/// The JSON objects that a command prints, one a line.
fn ask(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--format", "json"]].concat();
    cluster
        .ask(&arguments)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .collect::<Vec<Value>>()
}

/// The trial that agent 0 trains just now.
fn running_on_agent_0(cluster: &Cluster) -> u64 {
    wait::until("agent 0 trains", || {
        let workers = ask(cluster, &["workers"]);
        let worker =
            workers.iter().find(|worker| worker["worker"] == "agent-0" && worker["state"] == "connected")?;
        let trial = worker["devices"][0]["trials"][0].as_str()?;
        trial.rsplit_once('/')?.1.parse::<u64>().ok()
    })
}

#[test]
fn a_running_sweep_is_followed_sorted_brushed_interrupted_and_cancelled_in_a_browser() {
    let mut cluster = Cluster::start(3, Trainer::Stub, &[("SPOTSWEEP_STUB_STEP_US", "8000")]);
    let kept = std::env::var_os("SPOTSWEEP_SCREENSHOTS").map(PathBuf::from);
    let pictures = Pictures(kept.unwrap_or_else(|| cluster.path("")));
    assert_eq!(cluster.submit(SWEEP), "page");
    let browser = Browser::start();
    browser.look(1280, 900, "light");
    let page = cluster.page_url();
    browser.open(&format!("{page}/"));

    // The list, and from there to the sweep.
    browser
        .until("the list shows the sweep", "return document.querySelector('tr[data-sweep=page]') !== null");
    let text = browser.script("return document.querySelector('tr[data-sweep=page]').textContent");
    let text = text.as_str().expect("text");
    assert!(
        text.contains("<img src=x") && text.contains("\\u{202e}"),
        "hostile text is shown as text: {text}"
    );
    browser.click("tr[data-sweep=page] a");

    // A curve grows while one looks.
    let points = "return Number(document.querySelector('#curves')?.dataset.points ?? 0)";
    let few = browser.until("a curve is there", points).as_u64().expect("a number");
    let grown = format!("{points} > {few}");
    browser.until("the curve grows", &grown);
    assert!(
        browser
            .script("return document.querySelector('#curves canvas') !== null")
            .as_bool()
            .expect("a canvas")
    );

    // Sorting by a column.
    let ended =
        "return Number(document.querySelector('.progress')?.title.match(/(\\d+) completed/)?.[1] ?? 0) >= 9";
    browser.until("some trials have ended", ended);
    let sorted = "const heads = [...document.querySelectorAll('#table th')].map((th) => th.querySelector('button').dataset.column); \
        const at = heads.indexOf('learning_rate'); \
        return [...document.querySelectorAll('#table tr[data-number]')].map((tr) => Number(tr.children[at].textContent))";
    browser.click("#table th button[data-column=learning_rate]");
    for order in ["ascending", "descending"] {
        let head = format!(
            "return document.querySelector('#table th:has(button[data-column=learning_rate])')?.ariaSort === '{order}' \
             && document.querySelectorAll('#table tr[data-number]').length > 10"
        );
        browser.until("the table is sorted", &head);
        wait::until(order, || {
            let values: Vec<f64> =
                browser.script(sorted).as_array()?.iter().filter_map(Value::as_f64).collect();
            let in_order =
                |pair: &[f64]| if order == "ascending" { pair[0] <= pair[1] } else { pair[0] >= pair[1] };
            (values.len() > 10 && values.windows(2).all(in_order)).then_some(())
        });
        browser.click("#table th button[data-column=learning_rate]");
    }

    // Brushing an axis filters the table.
    let count = "return Number(document.querySelector('#table [role=status]').textContent.match(/^[\\d,]+/)?.[0].replace(',', ''))";
    browser.until("the table holds all", &format!("{count} === 60"));
    browser.drag_up("[data-axis=momentum]", 90);
    browser.until("the brush filters", &format!("const n = (() => {{ {count} }})(); return n > 0 && n < 60"));
    let momentum = "return [...document.querySelectorAll('#table tr[data-number]')].map((tr) => Number(tr.children[6].textContent))";
    wait::until("only rows within the brush are shown", || {
        let values: Vec<f64> =
            browser.script(momentum).as_array()?.iter().filter_map(Value::as_f64).collect();
        (!values.is_empty() && values.iter().all(|value| *value > 0.3)).then_some(())
    });
    pictures.take(&browser, "sweep-light", (1280, 1080), "light");
    pictures.take(&browser, "sweep-dark", (1280, 1080), "dark");
    browser.press("[data-axis=momentum]", Key::Escape);
    browser.until("without the brush all are back", &format!("{count} === 60"));

    // A trial through an interruption.
    let number = running_on_agent_0(&cluster);
    browser.script(&format!("location.hash = '#/sweep/page/{number}'"));
    browser.until(
        "its attempt is shown",
        "return document.querySelector('#attempts .attempt[data-end=running]') !== null",
    );
    browser.until("it has a checkpoint", "return document.querySelector('[data-checkpoint]') !== null");
    cluster.kill_agent(0);
    let interrupted = "return document.querySelector('#attempts .attempt[data-end=interrupted]') !== null";
    browser.until("the interruption is shown", interrupted);
    browser
        .until("it goes on elsewhere", "return document.querySelectorAll('#attempts .attempt').length > 1");
    let explained = "return document.querySelector('.explain').textContent.includes('agent-0')";
    browser.until("the reason is shown", explained);
    let done = "return document.querySelector('h1 .badge')?.dataset.state === 'completed'";
    browser.until("it completes all the same", done);
    browser.until(
        "its final weights are there",
        "return document.querySelector('[data-part=weights]') !== null",
    );

    // What its attempts printed, the newest first.
    let log = "const log = document.querySelector('#log pre'); return log?.dataset.attempt === '2' && log.textContent.includes('[spotsweep: finished at step')";
    browser.until("the log of the newest attempt is shown", log);
    browser.script("const select = document.querySelector('#log select'); select.value = '1'; select.dispatchEvent(new Event('change'))");
    let first = "const text = document.querySelector('#log pre').textContent; return text.includes('attempt 1 begins') && !text.includes('finished')";
    browser.until("that of the attempt on the machine that is gone, too", first);
    pictures.take(&browser, "trial-light", (1280, 1130), "light");
    pictures.take(&browser, "trial-dark", (1280, 1130), "dark");

    // Its weights, byte for byte.
    browser.click("[data-part=weights]");
    let step = browser.script("return document.querySelector('[data-part=weights]').dataset.checkpoint");
    let step = step.as_str().expect("a step").to_owned();
    let file = browser.downloads().join(format!("page-{number}-step{step}-weights.safetensors"));
    let downloaded =
        wait::until("the download ends", || std::fs::read(&file).ok().filter(|all| !all.is_empty()));
    let target = cluster.path("weights.safetensors");
    let target_text = target.to_str().expect("UTF-8");
    cluster.ask(&["checkpoint", "get", &format!("page/{number}"), "-o", target_text]);
    assert_eq!(downloaded, std::fs::read(&target).expect("the file is there"));

    // A trial is cancelled, after a question.
    browser.script("location.hash = '#/sweep/page/59'");
    browser.until("trial 59 is shown", "return document.querySelector('h1')?.textContent.includes('59')");
    browser.click("button[data-action=cancel]");
    browser.until("it asks first", "return document.querySelector('#ask').open");
    browser.click("#ask-yes");
    browser.until(
        "it is cancelled",
        "return document.querySelector('h1 .badge')?.dataset.state === 'cancelled'",
    );
    assert_eq!(ask(&cluster, &["show", "page/59"])[0]["state"], json!("cancelled"));

    // The workers, one of them gone.
    browser.script("location.hash = '#/workers'");
    let gone = "return document.querySelector('[data-worker=agent-0] .badge')?.dataset.state === 'gone'";
    browser.until("the killed worker is shown as gone", gone);
    browser
        .until("who trained what is drawn", "return document.querySelectorAll('.gantt .attempt').length > 9");
    pictures.take(&browser, "workers-light", (1280, 620), "light");
    pictures.take(&browser, "workers-dark", (1280, 620), "dark");

    // Pause and resume of the whole.
    browser.script("location.hash = '#/sweep/page'");
    browser.click("button[data-action=pause]");
    browser.until("it is paused", "return document.querySelector('h1 .badge')?.dataset.state === 'paused'");
    browser.click("button[data-action=resume]");
    browser.until("it runs again", "return document.querySelector('h1 .badge')?.dataset.state === 'running'");
    browser.script("location.hash = '#/'");
    browser.until("the list is back", "return document.querySelector('tr[data-sweep=page] .spark polyline, tr[data-sweep=page] .spark circle') !== null");
    pictures.take(&browser, "sweeps-light", (1280, 360), "light");

    // Back from an export it is shown as what it is, and nothing can be done to it.
    cluster.ask(&["cancel", "page"]);
    wait::until("it has ended", || {
        (ask(&cluster, &["show", "page"])[0]["state"] == json!("cancelled")).then_some(())
    });
    let export = cluster.path("export");
    let export = export.to_str().expect("UTF-8");
    cluster.ask(&["export", "page", "--as", "json", "--to", export]);
    assert_eq!(cluster.ask(&["import", export, "--name", "back"]).trim(), "back");
    browser.script("location.hash = '#/sweep/back'");
    browser.until(
        "it says that it was imported",
        "return document.querySelector('.view')?.innerText.includes('read-only, without checkpoints')",
    );
    browser.until("its curves are drawn", "return document.querySelectorAll('canvas').length > 0");
    assert_eq!(browser.script("return document.querySelectorAll('button[data-action]').length"), json!(0));
    pictures.take(&browser, "imported", (1280, 700), "light");

    // A telephone's width needs no scrolling sideways.
    browser.look(420, 900, "light");
    for view in ["#/", "#/sweep/page", "#/sweep/page/0", "#/workers"] {
        browser.script(&format!("location.hash = '{view}'"));
        browser.until(
            "the view is shown",
            "return document.querySelector('.view') && !document.querySelector('.view[aria-busy]')",
        );
        let wide = browser
            .script("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert!(wide.as_i64().expect("a number") <= 0, "{view} is {wide} pixels too wide");
    }
    assert_eq!(browser.script("return window.hacked ?? null"), Value::Null, "no markup of others runs");
    let errors = browser.errors();
    assert!(errors.is_empty(), "{errors:#?}");
}
