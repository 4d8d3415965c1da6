//! A real browser, driven through WebDriver: chromium without a window, in a folder of its own, gone with the test.

use crate::{cluster::free_port, wait};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;
use thirtyfour::{CapabilitiesHelper as _, ChromiumLikeCapabilities as _, DesiredCapabilities, WebDriver};
use tokio::runtime::Runtime;

/// What chromium is started with: no window, no sandbox (tests may run as root), no traffic of its own.
const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
];

/// A browser with one page.
pub struct Browser {
    runtime: Runtime,
    driver: WebDriver,
    process: Child,
    folder: TempDir,
}

impl Browser {
    /// Started, with a blank page.
    ///
    /// # Panics
    /// If chromium or chromedriver is not there.
    pub fn start() -> Self {
        let port = free_port();
        // A group of its own, so that chromium ends with it, whatever becomes of the test.
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts (Debian: apt-get install chromium chromium-driver)");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("downloads")).expect("the folder is writable");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut capabilities = DesiredCapabilities::chrome();
        for argument in ARGUMENTS {
            capabilities.add_arg(argument).expect("an argument");
        }
        let profile = folder.path().join("profile");
        capabilities.add_arg(&format!("--user-data-dir={}", profile.display())).expect("an argument");
        capabilities.set("goog:loggingPrefs", json!({"browser": "ALL"})).expect("a capability");
        let url = format!("http://127.0.0.1:{port}");
        let driver = wait::until("the browser starts", || {
            runtime.block_on(WebDriver::new(&url, capabilities.clone())).ok()
        });
        let browser = Self { runtime, driver, process, folder };
        let downloads = browser.downloads();
        browser.command("Page.setDownloadBehavior", json!({"behavior": "allow", "downloadPath": downloads}));
        browser
    }

    /// Where downloads go.
    pub fn downloads(&self) -> std::path::PathBuf {
        self.folder.path().join("downloads")
    }

    fn command(&self, name: &str, parameters: Value) -> Value {
        let cdp = self.driver.cdp();
        self.runtime
            .block_on(cdp.send_raw(name, parameters))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The size of the page, in pixels, and the colours that the system prefers.
    pub fn look(&self, width: u32, height: u32, colours: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": colours}]});
        self.command("Emulation.setEmulatedMedia", feature);
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.driver.goto(url)).expect("the page opens");
    }

    /// What a script in the page returns.
    pub fn script(&self, script: &str) -> Value {
        let outcome = self.runtime.block_on(self.driver.execute(script, Vec::new()));
        outcome.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// Waits until a script returns something true; gives it.
    pub fn until(&self, what: &str, script: &str) -> Value {
        wait::until(what, || {
            let value = self.script(script);
            let nothing = matches!(value, Value::Null | Value::Bool(false));
            (!nothing && value != json!(0) && value != json!("")).then_some(value)
        })
    }

    /// Clicks what a selector finds, as soon as it is there and can be clicked.
    pub fn click(&self, selector: &str) {
        wait::until(&format!("{selector} can be clicked"), || {
            let clicked = async {
                let element = self.driver.find(thirtyfour::By::Css(selector)).await?;
                element.scroll_into_view().await?;
                element.click().await
            };
            self.runtime.block_on(clicked).ok()
        });
    }

    /// Presses a key on what a selector finds.
    pub fn press(&self, selector: &str, key: thirtyfour::Key) {
        self.script(&format!("document.querySelector('{selector}').focus()"));
        let pressed = async { self.driver.action_chain().send_keys(key + "").perform().await };
        self.runtime.block_on(pressed).expect("a key is pressed");
    }

    /// Drags upwards from the middle of what a selector finds, by so many pixels.
    pub fn drag_up(&self, selector: &str, pixels: i64) {
        let dragged = async {
            let element = self.driver.find(thirtyfour::By::Css(selector)).await?;
            element.scroll_into_view().await?;
            let chain = self.driver.action_chain().move_to_element_center(&element).click_and_hold();
            chain.move_by_offset(0, -pixels / 2).move_by_offset(0, -pixels / 2).release().perform().await
        };
        self.runtime.block_on(dragged).expect("the pointer drags");
    }

    /// Errors that the page's console holds, of scripts, of the security policy, of requests.
    pub fn errors(&self) -> Vec<String> {
        let entries = self.runtime.block_on(self.driver.get_log("browser")).expect("a log");
        let severe = entries.into_iter().filter(|entry| entry.level == "SEVERE");
        severe.map(|entry| entry.message).collect()
    }

    /// A picture of the page as far as it is in view, as PNG.
    pub fn screenshot(&self, path: &Path) {
        let picture = self.runtime.block_on(self.driver.screenshot_as_png()).expect("a picture");
        assert!(picture.starts_with(b"\x89PNG"), "a picture is a PNG");
        std::fs::write(path, picture).expect("the picture can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id"));
        // An error means that all of it has ended.
        let _gone = killpg(group, Signal::SIGKILL);
        let _status = self.process.wait();
    }
}
