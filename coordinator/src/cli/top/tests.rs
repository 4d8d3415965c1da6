use super::{
    model::{Effect, Happened, Model, News, Prompt, Shown, Tab},
    view,
};
use crate::cli::{
    fixtures::{summary, trials},
    plot::Curve,
    source::Change,
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};
use spotsweep_wire::v1::{Device, DeviceSummary, ListTrialsResponse, SweepSummary, Trial, WorkerSummary};

const NOW_US: u64 = 1_795_500_090_000_000;

fn workers() -> Vec<WorkerSummary> {
    let worker = |name: &str, state: &str, trial: &str| WorkerSummary {
        name: name.to_owned(),
        state: state.to_owned(),
        devices: vec![DeviceSummary {
            device: Some(Device { name: "cpu".to_owned(), ..Device::default() }),
            credits: 1,
            trials: vec![trial.to_owned()],
        }],
        since_us: NOW_US - 65_000_000,
        ..WorkerSummary::default()
    };
    vec![worker("local-1", "connected", "ladder/1"), worker("local-2", "silent", "ladder/4")]
}

fn curve() -> Curve {
    let mut curve = Curve::of("val_accuracy");
    for step in 1..=80_u32 {
        curve.push(u64::from(step) * 5, 0.9 - 0.8 * (-f64::from(step) / 15.0).exp());
    }
    curve
}

/// Gives the page that is wanted, as a coordinator would.
fn answer(model: &mut Model, all: &[Trial]) {
    let wanted = model.wanted();
    if let Some(asked) = wanted.trials {
        let (offset, limit) = (asked.offset as usize, asked.limit as usize);
        let page = ListTrialsResponse {
            trials: all.iter().skip(offset).take(limit).cloned().collect(),
            total: all.len() as u64,
            varying: vec!["model".to_owned(), "learning_rate".to_owned()],
        };
        model.told(News::Trials { asked, page });
    }
    if let Some(name) = model.wanted().trial {
        let trial = all.iter().find(|one| one.trial == name).cloned().unwrap_or_default();
        let why = vec![format!("{name} is {}: agent-0 trains it", trial.state)];
        model.told(News::Trial(Box::new(Shown { trial, why, curves: vec![curve(), Curve::of("val_loss")] })));
    }
}

fn model(size: (u16, u16)) -> Model {
    let mut model = Model::new("http://127.0.0.1:7077", size, NOW_US);
    let other = SweepSummary { sweep: "older".to_owned(), submitted_at_us: 1, ..summary() };
    model.told(News::Sweeps(vec![other, summary()]));
    model.told(News::Workers(workers()));
    for (at_us, about, text) in [
        (NOW_US - 9_000_000, "ladder/1", "interrupted at step 300: the worker left"),
        (NOW_US - 2_000_000, "ladder/1", "attempt 2 goes on at step 300 on local-1 (cpu)"),
    ] {
        let (about, text) = (about.to_owned(), text.to_owned());
        model.told(News::Happened(Happened { at_us, about, text }));
    }
    model
}

fn press(model: &mut Model, keys: &[KeyCode]) -> Option<Effect> {
    keys.iter().fold(None, |_, key| model.key(KeyEvent::new(*key, KeyModifiers::NONE)))
}

fn typed(model: &mut Model, text: &str) {
    text.chars().for_each(|c| {
        press(model, &[KeyCode::Char(c)]);
    });
}

fn drawn(model: &Model, colour: bool) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
    terminal.draw(|frame| view::draw(model, colour, frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen as lines of text.
fn screen(model: &Model) -> String {
    let buffer = drawn(model, true);
    let lines = buffer.content.chunks(usize::from(buffer.area.width)).map(|cells| {
        let mut line = String::new();
        let mut hidden = 0_usize;
        for cell in cells {
            if hidden == 0 {
                line.push_str(cell.symbol());
                hidden = unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1);
            }
            hidden -= 1;
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

const SIZES: [(u16, u16); 2] = [(80, 24), (120, 40)];

#[test]
fn sweeps_are_listed_newest_first_with_what_happened_where_there_is_room() {
    for size in SIZES {
        insta::assert_snapshot!(format!("sweeps_{}x{}", size.0, size.1), screen(&model(size)));
    }
}

#[test]
fn trials_are_listed_best_first_with_the_curve_of_the_chosen_one() {
    for size in SIZES {
        let mut model = model(size);
        press(&mut model, &[KeyCode::Enter]);
        answer(&mut model, &trials());
        insta::assert_snapshot!(format!("trials_{}x{}", size.0, size.1), screen(&model));
    }
}

#[test]
fn a_trial_fills_the_screen_with_its_facts_its_reason_and_its_curve() {
    for size in SIZES {
        let mut model = model(size);
        press(&mut model, &[KeyCode::Enter]);
        answer(&mut model, &trials());
        press(&mut model, &[KeyCode::Down, KeyCode::Down, KeyCode::Enter]);
        answer(&mut model, &trials());
        insta::assert_snapshot!(format!("trial_{}x{}", size.0, size.1), screen(&model));
    }
}

#[test]
fn workers_events_help_and_questions_have_their_place() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Char('3')]);
    insta::assert_snapshot!("workers_80x24", screen(&model));
    press(&mut model, &[KeyCode::Char('4')]);
    insta::assert_snapshot!("events_80x24", screen(&model));
    press(&mut model, &[KeyCode::Char('?')]);
    insta::assert_snapshot!("help_80x24", screen(&model));
    press(&mut model, &[KeyCode::Esc, KeyCode::Char('1'), KeyCode::Char('c')]);
    insta::assert_snapshot!("confirm_80x24", screen(&model));
}

/// A coordinator full of escape sequences, marks that turn the writing, and very long text.
fn hostile(size: (u16, u16)) -> Model {
    let bad = format!(
        "\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}evil\u{9b}31m{}\r\n{}",
        "e\u{301}\u{302}".repeat(500),
        "漢".repeat(10_000)
    );
    let mut model = model(size);
    model.place.clone_from(&bad);
    let sweep = SweepSummary {
        sweep: bad.clone(),
        state: bad.clone(),
        objective: bad.clone(),
        best_trial: Some(bad.clone()),
        submitted_at_us: u64::MAX,
        ..summary()
    };
    model.told(News::Sweeps(vec![sweep]));
    model.told(News::Workers(vec![WorkerSummary {
        name: bad.clone(),
        notice: bad.clone(),
        ..workers().remove(0)
    }]));
    model.told(News::Happened(Happened { at_us: u64::MAX, about: bad.clone(), text: bad.clone() }));
    model.told(News::Refused(bad.clone()));
    press(&mut model, &[KeyCode::Enter]);
    let mut all = trials();
    for one in &mut all {
        one.trial.clone_from(&bad);
        one.state.clone_from(&bad);
        one.failure.clone_from(&bad);
        one.worker.clone_from(&bad);
        one.params_json = serde_json::json!({"model": bad, bad.as_str(): bad}).to_string();
        for metric in &mut one.metrics {
            metric.name.clone_from(&bad);
        }
    }
    answer(&mut model, &all);
    let (mut curve, why) = (curve(), vec![bad.clone()]);
    curve.metric.clone_from(&bad);
    model.told(News::Trial(Box::new(Shown { trial: all.remove(0), why, curves: vec![curve] })));
    model.told(News::Refused(bad));
    model
}

#[test]
fn hostile_names_parameters_and_messages_are_shown_as_text_and_stay_in_their_place() {
    for size in SIZES {
        let mut model = hostile(size);
        for keys in ["1", "2", "3", "4", "?"] {
            typed(&mut model, keys);
            for cell in &drawn(&model, true).content {
                let symbol = cell.symbol();
                assert!(symbol.chars().count() <= 64, "marks pile up");
                assert!(
                    !symbol
                        .chars()
                        .any(|c| c.is_control()
                            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')),
                    "{symbol:?}"
                );
            }
            press(&mut model, &[KeyCode::Esc]);
        }
        typed(&mut model, "2");
        insta::assert_snapshot!(format!("hostile_{}x{}", size.0, size.1), screen(&model));
    }
}

#[test]
fn without_colours_only_bold_dim_and_reversed_are_used() {
    let mut model = model((120, 40));
    press(&mut model, &[KeyCode::Enter]);
    answer(&mut model, &trials());
    let coloured = |colour: bool| {
        let buffer = drawn(&model, colour);
        buffer.content.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(coloured(true));
    assert!(!coloured(false));
}

#[test]
fn only_the_visible_page_and_its_neighbours_are_asked_for() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Enter]);
    let all: Vec<Trial> = (0..10_000)
        .map(|number| Trial { number, trial: format!("ladder/{number}"), ..trials().remove(0) })
        .collect();
    answer(&mut model, &all);
    press(&mut model, &[KeyCode::End]);
    let wanted = model.wanted().trials.unwrap();
    assert!(wanted.limit < 100, "{wanted:?}");
    answer(&mut model, &all);
    assert_eq!(model.chosen_trial().unwrap().number, 9_999);
    assert!(screen(&model).contains("9999"));
    press(&mut model, &[KeyCode::PageUp]);
    assert!(model.chosen_trial().is_some(), "the page before is there already");
}

#[test]
fn nothing_is_changed_without_a_yes_and_what_was_asked_about_is_what_is_changed() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Enter]);
    answer(&mut model, &trials());
    let asked =
        |model: &Model| matches!(&model.prompt, Some(Prompt::Confirm { target, .. }) if target == "ladder/0");
    assert_eq!(press(&mut model, &[KeyCode::Char('c')]), None);
    assert!(asked(&model));
    assert_eq!(press(&mut model, &[KeyCode::Enter]), None);
    assert_eq!(model.prompt, None);
    press(&mut model, &[KeyCode::Char('c')]);
    // The list turns round while the question stands.
    let mut turned = trials();
    turned.reverse();
    answer(&mut model, &turned);
    assert_eq!(
        press(&mut model, &[KeyCode::Char('y')]),
        Some(Effect::Change(Change::Cancel, "ladder/0".to_owned()))
    );
    press(&mut model, &[KeyCode::Char('3'), KeyCode::Char('p')]);
    assert_eq!(model.prompt, None, "a worker cannot be paused");
}

#[test]
fn a_filter_is_text_or_conditions_and_escape_takes_it_away() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Enter]);
    typed(&mut model, "/cnn");
    press(&mut model, &[KeyCode::Enter]);
    let wanted = model.wanted().trials.unwrap();
    assert_eq!((wanted.search.as_str(), wanted.filter.as_str()), ("cnn", ""));
    typed(&mut model, "/;state=running");
    press(&mut model, &[KeyCode::Enter]);
    let wanted = model.wanted().trials.unwrap();
    assert_eq!((wanted.search.as_str(), wanted.filter.as_str()), ("", "cnn;state=running"));
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.wanted().trials.unwrap().filter, "");
    assert_eq!(model.tab, Tab::Trials);
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.tab, Tab::Sweeps);
}

#[test]
fn sorting_goes_through_columns_objective_and_parameters_and_turns_round() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Enter]);
    answer(&mut model, &trials());
    let sort = |model: &Model| model.wanted().trials.unwrap().sort;
    assert_eq!(sort(&model), "");
    typed(&mut model, "S");
    assert_eq!(sort(&model), "best", "the worst first, where more is better");
    let mut seen = Vec::new();
    for _ in 0..model.sort_keys().len() {
        typed(&mut model, "s");
        seen.push(sort(&model));
    }
    assert_eq!(
        seen,
        [
            "number",
            "state",
            "steps",
            "attempts",
            "seconds",
            "metrics.val_accuracy",
            "params.model",
            "params.learning_rate",
            ""
        ]
    );
}

#[test]
fn a_coordinator_that_is_away_is_said_to_be_and_what_was_known_stays() {
    let mut model = model((80, 24));
    model.told(News::Away { why: "connection refused".to_owned() });
    model.now_us += 12_000_000;
    let text = screen(&model);
    assert!(text.contains("no answer for 12s, trying again"), "{text}");
    assert!(text.contains("ladder"), "{text}");
    model.told(News::Sweeps(vec![summary()]));
    let text = screen(&model);
    assert!(text.contains("connected"), "{text}");
    assert!(model.events.iter().any(|one| one.text == "the coordinator answers again"));
}

#[test]
fn the_next_metric_is_one_key_away() {
    let mut model = model((80, 24));
    press(&mut model, &[KeyCode::Enter]);
    answer(&mut model, &trials());
    let shown = |model: &Model| model.curve().map(|curve| curve.metric.clone());
    assert_eq!(shown(&model).as_deref(), Some("val_accuracy"), "the objective first");
    typed(&mut model, "m");
    assert_eq!(shown(&model).as_deref(), Some("val_loss"));
    typed(&mut model, "m");
    assert_eq!(shown(&model).as_deref(), Some("val_accuracy"));
}

#[test]
fn ctrl_c_ends_it_even_while_something_is_asked() {
    let mut model = model((80, 24));
    typed(&mut model, "/abc");
    let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(key), Some(Effect::Interrupt));
}

fn any_key() -> impl Strategy<Value = KeyCode> {
    prop_oneof![
        prop::sample::select(vec![
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::Backspace,
        ]),
        prop::sample::select("qjkgGmsSprcy?/1234 x".chars().map(KeyCode::Char).collect::<Vec<_>>()),
    ]
}

proptest! {
    #[test]
    fn no_keys_at_no_size_break_it(
        keys in prop::collection::vec(any_key(), 0..40), width in 1_u16..200, height in 1_u16..60, answers in any::<u64>(),
    ) {
        let mut model = model((width, height));
        for (index, key) in keys.into_iter().enumerate() {
            press(&mut model, &[key]);
            if answers >> (index % 64) & 1 == 1 {
                answer(&mut model, &trials());
            }
            drawn(&model, true);
        }
    }
}
