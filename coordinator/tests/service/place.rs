//! A coordinator in a temporary folder, and clients of it.

use spotsweep_coordinator::{
    Problem,
    http::HttpAddress,
    server::{Coordinator, Running},
    store::StoreOptions,
};
use spotsweep_wire::v1::{self, control_client::ControlClient};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;

/// A folder, and the coordinator on it.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) url: String,
    /// Where the web page is, without the slash at its end.
    pub(crate) page: String,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Result<(), Problem>>>,
}

impl Place {
    /// A new folder with a coordinator at work.
    pub(crate) async fn start() -> Self {
        Self::start_with(StoreOptions::default()).await
    }

    pub(crate) async fn start_with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self { folder, url: String::new(), page: String::new(), stop: None, running: None };
        place.restart(options).await;
        place
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    /// Opens the folder again.
    pub(crate) async fn restart(&mut self, options: StoreOptions) {
        let running: Running = Coordinator::open(&self.dir(), &options)
            .unwrap()
            .serve("127.0.0.1:0".parse().unwrap(), HttpAddress::Free { usual: false })
            .await
            .unwrap();
        self.url = running.url.clone();
        let page = running.page_url.as_deref().expect("a page is served");
        self.page = page.trim_end_matches('/').to_owned();
        let (stop, stopped) = oneshot::channel::<()>();
        self.stop = Some(stop);
        self.running = Some(tokio::spawn(running.run(async {
            let _dropped = stopped.await;
        })));
    }

    /// Ends the coordinator in order.
    pub(crate) async fn shut_down(&mut self) {
        drop(self.stop.take());
        self.running.take().unwrap().await.unwrap().unwrap();
    }

    pub(crate) async fn client(&self) -> ControlClient<Channel> {
        ControlClient::connect(self.url.clone()).await.unwrap()
    }
}

/// A sweep file of `trials` trials that train nothing.
pub(crate) fn nothing(name: &str, trials: u32) -> String {
    format!(
        "name: {name}\nmethod: random\nrun_cap: {trials}\nmetric: {{name: val_loss, goal: minimize}}\n\
         parameters:\n  seed: {{min: 0, max: 1000000}}\ntrain: {{model: noop, steps: 1}}\n"
    )
}

pub(crate) fn submission(source: &str, token: u128) -> v1::SubmitRequest {
    v1::SubmitRequest {
        source: source.to_owned().into(),
        file_name: "sweep.yaml".to_owned(),
        token: token.to_be_bytes().to_vec().into(),
        code: None,
        modules: Vec::new(),
    }
}

/// Every row of a sweep.
pub(crate) async fn results(client: &mut ControlClient<Channel>, sweep: &str) -> Vec<v1::Trial> {
    let request = v1::ResultsRequest { sweep: sweep.to_owned() };
    let mut pages = client.results(request).await.unwrap().into_inner();
    let mut rows = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        rows.extend(page.trials);
    }
    rows
}
