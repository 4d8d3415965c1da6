//! The report as one HTML file: no script, nothing fetched, light or dark as the reader's system is.
//!
//! Every text that comes from outside goes through [`escape`].

use super::{
    Story, cell, course, percent,
    svg::{self, Named},
};
use crate::cli::text;
use std::fmt::Write as _;

// Colours that differ also to who does not see red from green (M. Okabe and K. Ito, Color Universal Design, 2008).
const STYLE: &str = "
:root{--ink:#1b1f24;--soft:#59636e;--rule:#d5dae0;--paper:#fff;--box:#f5f7f9;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#a07700}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaee;--soft:#9aa5b1;--rule:#38414b;--paper:#14181c;--box:#1d2329;--c0:#56b4e9;--c1:#f0883e;--c2:#2dc79a;--c3:#e39cc4;--c4:#f0e442}}
body{color:var(--ink);background:var(--paper);font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid var(--rule)}
p.soft,figcaption,svg text{color:var(--soft);fill:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
th{font-weight:600;color:var(--soft);white-space:nowrap;overflow-wrap:normal}td.n,th.n{text-align:right;white-space:nowrap}
figure{margin:1rem 0}svg{width:100%;height:auto;font-size:12px}
.grid{stroke:var(--rule);fill:none}.axis{stroke:var(--soft);fill:none}.line{fill:none;stroke-width:2}
.line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}.line.c4{stroke:var(--c4)}
.dot.c0,.key.c0{fill:var(--c0);color:var(--c0)}.dot.c1,.key.c1{fill:var(--c1);color:var(--c1)}.dot.c2,.key.c2{fill:var(--c2);color:var(--c2)}.dot.c3,.key.c3{fill:var(--c3);color:var(--c3)}.dot.c4,.key.c4{fill:var(--c4);color:var(--c4)}
.key{margin-right:1rem}.bar{display:inline-block;height:.8rem;background:var(--c0);min-width:1px}
td.share{width:50%}pre{background:var(--box);padding:1rem;overflow-x:auto;font-size:13px}
@media print{body{margin:0}}
";

/// The page.
pub(crate) fn page(story: &Story) -> String {
    let sweep = &story.sweep;
    let name = escape(&cell(&sweep.sweep));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<title>{name}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{name}</h1>\n"
    );
    let mut add = |text: String| page += &text;
    add(format!("<p class=\"soft\">{}</p>\n", escape(&super::markdown::headline(story))));
    if !sweep.description.is_empty() {
        add(format!("<p>{}</p>\n", escape(&cell(&sweep.description))));
    }
    add("<h2>What was searched</h2>\n<div class=\"wide\"><table>\n<tr><th>parameter</th><th>values</th></tr>\n".to_owned());
    for one in &story.searched {
        add(format!("<tr><th>{}</th><td>{}</td></tr>\n", escape(&cell(&one.name)), escape(&one.told())));
    }
    add("</table></div>\n".to_owned());
    add(best(story));
    add(curves(story));
    add(importance(story));
    add("<h2>What it went through</h2>\n<table>\n".to_owned());
    for (what, told) in course(story) {
        add(format!("<tr><th>{what}</th><td>{}</td></tr>\n", escape(&told)));
    }
    add("</table>\n<h2>To repeat it</h2>\n".to_owned());
    let how = super::markdown::repeat(story);
    add(format!("<p>{}</p>\n<pre>{}</pre>\n", escape(&how.0), escape(&how.1)));
    page + "</body>\n</html>\n"
}

fn best(story: &Story) -> String {
    let rows = super::markdown::best(story);
    if rows.is_empty() {
        return "<h2>Best trials</h2>\n<p>No trial has reported the objective yet.</p>\n".to_owned();
    }
    let mut out = "<h2>Best trials</h2>\n<div class=\"wide\"><table>\n".to_owned();
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        let cells = row.iter().enumerate().map(|(column, text)| {
            let class = if column < 2 { " class=\"n\"" } else { "" };
            format!("<{tag}{class}>{}</{tag}>", escape(text))
        });
        let _ = writeln!(out, "<tr>{}</tr>", cells.collect::<String>());
    }
    out + "</table></div>\n"
}

fn curves(story: &Story) -> String {
    let objective = escape(&cell(&story.sweep.objective));
    let mut out = String::new();
    let named: Vec<Named<'_>> = story
        .curves
        .iter()
        .map(|(number, line)| Named { name: format!("trial {number}"), line, steps: false })
        .collect();
    let drawing = svg::lines(&format!("{objective} of the best trials, by step"), "step", &named);
    if !drawing.is_empty() {
        let legend = named.iter().enumerate().map(|(index, one)| {
            let value = story.best.iter().find(|trial| one.name == format!("trial {}", trial.number));
            let value = value.and_then(|found| found.best).map(text::metric);
            format!("<span class=\"key c{index}\">● {} {}</span>", one.name, value.unwrap_or_default())
        });
        let _ = write!(
            out,
            "<h2>Learning curves of the best</h2>\n<figure>\n{drawing}<figcaption>{objective} by step: {}</figcaption>\n\
             </figure>\n",
            legend.collect::<String>()
        );
    }
    let so_far = Named { name: "best so far".to_owned(), line: &story.so_far, steps: true };
    let drawing = svg::lines(&format!("best {objective} so far, by trial"), "trial", &[so_far]);
    if !drawing.is_empty() {
        let _ = write!(
            out,
            "<h2>Best so far</h2>\n<figure>\n{drawing}<figcaption>best {objective} of all trials up to each number</figcaption>\n</figure>\n"
        );
    }
    out
}

fn importance(story: &Story) -> String {
    let mut out = "<h2>What made the difference</h2>\n".to_owned();
    if story.importance.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(super::markdown::NO_IMPORTANCE));
        return out;
    }
    out += "<table style=\"width:100%\">\n";
    for (name, share) in &story.importance {
        let _ = writeln!(
            out,
            "<tr><th>{}</th><td class=\"n\">{}</td><td class=\"share\"><span class=\"bar\" style=\"width:{:.1}%\"></span></td></tr>",
            escape(&cell(name)),
            percent(*share),
            share * 100.0
        );
    }
    let _ = writeln!(
        out,
        "</table>\n<p class=\"soft\">{}</p>",
        escape(&super::markdown::importance_source(story))
    );
    out
}

/// Text that is no markup, between tags and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_no_markup() {
        let page = page(&super::super::tests::story());
        assert!(!page.contains("<script"), "no script, not even a stranger's");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'));
        assert!(page.len() < 100_000, "{}", page.len());
        insta::assert_snapshot!(page.replace(env!("CARGO_PKG_VERSION"), "VERSION").replace(STYLE, "STYLE"));
    }
}
