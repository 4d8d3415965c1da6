//! The arrows of ARCHITECTURE.md, checked against what cargo resolves.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// The platform on which this runs, as rustc calls it.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host").to_owned()
}

/// Normal (not dev, not build) dependencies by package name.
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Graph {
    fn of_this_workspace() -> Self {
        // For this platform alone: nobody has fetched the crates of others.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let names: BTreeMap<&str, &str> = metadata["packages"]
            .as_array()
            .expect("packages")
            .iter()
            .map(|package| (package["id"].as_str().expect("id"), package["name"].as_str().expect("name")))
            .collect();
        let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
        for node in metadata["resolve"]["nodes"].as_array().expect("nodes") {
            let from = names[node["id"].as_str().expect("id")].to_owned();
            let to = node["deps"].as_array().expect("deps").iter().filter(|dep| {
                dep["dep_kinds"].as_array().expect("kinds").iter().any(|kind| kind["kind"].is_null())
            });
            let to = to.map(|dep| names[dep["pkg"].as_str().expect("pkg")].to_owned());
            edges.entry(from).or_default().extend(to);
        }
        Self(edges)
    }

    /// Some path from `from` to `to`, if there is one.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        assert!(self.0.contains_key(from), "{from} is in the workspace");
        let mut seen = BTreeSet::new();
        let mut open = vec![vec![from.to_owned()]];
        while let Some(path) = open.pop() {
            let last = path.last().expect("paths are never empty").clone();
            if last == to {
                return Some(path);
            }
            if seen.insert(last.clone()) {
                for next in self.0.get(&last).into_iter().flatten() {
                    open.push(path.iter().chain([next]).cloned().collect());
                }
            }
        }
        None
    }

    fn workspace_dependencies(&self, of: &str) -> Vec<&str> {
        self.0[of].iter().map(String::as_str).filter(|name| name.starts_with("spotsweep-")).collect()
    }
}

#[test]
fn nothing_but_the_trainer_reaches_libtorch() {
    let graph = Graph::of_this_workspace();
    for package in [
        "spotsweep-proto",
        "spotsweep-wire",
        "spotsweep-engine",
        "spotsweep-sim",
        "spotsweep-coordinator",
        "spotsweep-worker",
        "spotsweep-tests",
    ] {
        assert_eq!(graph.path(package, "torch-sys"), None);
    }
    assert!(graph.path("spotsweep-trainer", "torch-sys").is_some(), "the check itself can find a path");
}

#[test]
fn the_engine_and_the_contract_know_no_runtime_no_grpc_and_no_database() {
    let graph = Graph::of_this_workspace();
    for package in ["spotsweep-engine", "spotsweep-proto", "spotsweep-sim"] {
        for forbidden in ["tokio", "tar", "tonic", "hyper", "rusqlite", "object_store"] {
            assert_eq!(graph.path(package, forbidden), None);
        }
    }
    assert!(graph.path("spotsweep-coordinator", "tokio").is_some(), "the check itself can find a path");
}

#[test]
fn arrows_point_one_way() {
    let graph = Graph::of_this_workspace();
    assert_eq!(graph.workspace_dependencies("spotsweep-proto"), Vec::<&str>::new());
    assert_eq!(graph.workspace_dependencies("spotsweep-wire"), ["spotsweep-proto"]);
    assert_eq!(graph.workspace_dependencies("spotsweep-archive"), ["spotsweep-proto"]);
    assert_eq!(graph.workspace_dependencies("spotsweep-engine"), ["spotsweep-proto"]);
    for name in graph.workspace_dependencies("spotsweep-worker") {
        assert!(
            ["spotsweep-archive", "spotsweep-proto", "spotsweep-wire"].contains(&name),
            "the agent must not know {name}"
        );
    }
    for name in graph.workspace_dependencies("spotsweep-trainer") {
        assert!(
            ["spotsweep-proto", "spotsweep-trainer-shim"].contains(&name),
            "the trainer must not know {name}"
        );
    }
    assert_eq!(graph.path("spotsweep-worker", "spotsweep-engine"), None);
}
