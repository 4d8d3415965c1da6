//! What tells the program to leave: SIGTERM, SIGINT, and the end of stdin where its parent is to be followed.

use spotsweep_worker::Drain;
use std::{io::Read as _, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// What came, in order.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// Number of the last signal, and how many there were.
    signal: Option<u8>,
    signals: u32,
    parent_gone: bool,
}

/// The wish to leave, and the wish to leave at once.
pub(crate) struct Farewell {
    heard: watch::Receiver<Heard>,
    grace: Duration,
}

impl Farewell {
    pub(crate) fn listen(grace: Duration, with_parent: bool) -> std::io::Result<Self> {
        let (sender, heard) = watch::channel(Heard::default());
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            tokio::spawn(listen_for(kind, signal(kind)?, sender.clone()));
        }
        if with_parent {
            // A thread of its own: a read of stdin cannot be called off, and must not hold up the runtime's end.
            std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
                let mut stdin = std::io::stdin().lock();
                let mut ignored = [0; 256];
                while stdin.read(&mut ignored).is_ok_and(|bytes| bytes > 0) {}
                sender.send_modify(|heard| heard.parent_gone = true);
            })?;
        }
        Ok(Self { heard, grace })
    }

    /// The first wish: leave in order.
    pub(crate) fn first(&self) -> impl Future<Output = Drain> + use<> {
        let (mut heard, grace) = (self.heard.clone(), self.grace);
        async move {
            let told = |heard: &Heard| heard.signals > 0 || heard.parent_gone;
            match heard.wait_for(told).await {
                Ok(heard) => Drain { grace, orphaned: heard.parent_gone },
                // Nobody is left to listen, so nobody will tell.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// The second signal: leave at once. Gives the exit status.
    pub(crate) async fn second(&self) -> u8 {
        match self.heard.clone().wait_for(|heard| heard.signals > 1).await {
            Ok(heard) => 128 + heard.signal.unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

async fn listen_for(kind: SignalKind, mut signal: Signal, heard: watch::Sender<Heard>) {
    while signal.recv().await.is_some() {
        heard.send_modify(|heard| {
            heard.signals += 1;
            heard.signal = u8::try_from(kind.as_raw_value()).ok();
        });
    }
}
