//! Where things stand on a screen of some size. Pure.

use super::model::{Model, Tab};
use ratatui::layout::Rect;

/// The least size at which anything is shown.
pub(super) const LEAST: (u16, u16) = (40, 10);
/// From this width on, the chosen trial stands beside the list.
const WIDE: u16 = 110;
/// From this height of the body on, its curve stands below the list.
const TALL: u16 = 16;
/// Share of the width that a list keeps beside a trial, in percent.
const LIST: u32 = 58;
/// From this height on, the sweeps have the newest events below.
const WITH_EVENTS: u16 = 30;
/// Lines of those events, their title among them.
const EVENTS: u16 = 9;

/// The parts of the screen; what is not shown is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Layout {
    pub(super) head: Rect,
    pub(super) tabs: Rect,
    pub(super) list: Rect,
    /// The trial that is looked at, with everything.
    pub(super) trial: Rect,
    /// Its curve alone.
    pub(super) curve: Rect,
    /// The newest events.
    pub(super) events: Rect,
    pub(super) foot: Rect,
}

/// The layout for the model's size and tab.
pub(super) fn of(model: &Model) -> Layout {
    let (width, height) = model.size;
    let line = |y: u16| Rect::new(0, y, width, 1);
    let body = Rect::new(0, 2, width, height.saturating_sub(3));
    let mut layout = Layout {
        head: line(0),
        tabs: line(1),
        list: body,
        foot: line(height.saturating_sub(1)),
        ..Layout::default()
    };
    let below = |part: u16| {
        let list = Rect { height: body.height.saturating_sub(part), ..body };
        (list, Rect { y: list.bottom(), height: body.height - list.height, ..body })
    };
    match (model.tab, model.open) {
        (Tab::Trials, true) => (layout.list, layout.trial) = (Rect::default(), body),
        (Tab::Trials, false) if width >= WIDE => {
            let list = u16::try_from(u32::from(width) * LIST / 100).unwrap_or(width);
            layout.list.width = list;
            layout.trial = Rect { x: list + 2, width: width - list - 2, ..body };
        }
        (Tab::Trials, false) if body.height >= TALL => {
            (layout.list, layout.curve) = below((body.height * 2 / 5).max(7));
        }
        (Tab::Sweeps, _) if height >= WITH_EVENTS => (layout.list, layout.events) = below(EVENTS),
        (Tab::Sweeps | Tab::Trials | Tab::Workers | Tab::Events, _) => {}
    }
    layout
}

/// Rows of the tab's list that are seen, without its titles.
pub(super) fn rows(model: &Model) -> usize {
    usize::from(of(model).list.height.saturating_sub(1))
}
