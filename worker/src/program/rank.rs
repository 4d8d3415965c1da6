//! A program as one of the ranks that train a trial together: how its agent learns where rank 0 listens, and what the
//! program finds in its environment. What ranks say to each other passes them by; who is in a gang is the engine's decision.
//!
//! When all agents have said that they are ready, each is told its rank. That of rank 0 looks for a free port, and tells
//! the others by the rendezvous store of the make-up, which lies with the coordinator. Only then do programs start, so all
//! do within the time that two messages take.

use crate::{
    attempt::{Failure, LeaseKey},
    gang::{GangPlace, StoreQuestion},
    trainer::{GangSettings, HowToStop, RunnerCommand, TrainerEvent},
};
use spotsweep_proto::{
    gang::{StoreOp, StoreValue},
    line::FailureKind,
    program::variable,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::{net::TcpSocket, sync::mpsc, time::timeout};

/// Under which key rank 0's agent tells where that listens.
const MASTER: &str = "master";
/// Times that an agent gives one trial back because its port was taken between the look and the program's start; from then
/// on that is a failure.
pub(crate) const COLLISIONS: u32 = 3;

/// One of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) rank: u32,
    pub(crate) ranks: u32,
    /// Where the others reach rank 0.
    pub(crate) address: String,
    port: u16,
}

impl Rank {
    /// Whether it is the one whose word counts.
    pub(crate) fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// What the program finds.
    pub(crate) fn environment(&self) -> [(&'static str, String); 7] {
        [
            (variable::MASTER_ADDR, self.address.clone()),
            (variable::MASTER_PORT, self.port.to_string()),
            (variable::RANK, self.rank.to_string()),
            (variable::WORLD_SIZE, self.ranks.to_string()),
            (variable::LOCAL_RANK, "0".to_owned()),
            (variable::LOCAL_WORLD_SIZE, "1".to_owned()),
            (variable::GROUP_RANK, self.rank.to_string()),
        ]
    }
}

/// What came of looking for the others.
pub(crate) enum Meeting {
    Met(Rank),
    /// It shall stop before it has begun; `None`: the agent lets go.
    Stopped(Option<HowToStop>),
    /// Nobody said where rank 0 is: the coordinator was away, or the gang is over.
    Missed,
}

/// Learns where rank 0 is, or tells it. Waits no longer than ranks wait for each other.
pub(crate) async fn meet(
    lease: LeaseKey,
    place: &GangPlace,
    settings: &GangSettings,
    commands: &mut mpsc::UnboundedReceiver<RunnerCommand>,
    events: &mpsc::Sender<TrainerEvent>,
) -> Result<Meeting, Failure> {
    let Some(rank) = place.rank else { return Ok(Meeting::Missed) };
    let key = MASTER.to_owned();
    let own = match rank {
        0 => {
            let address = settings.address.find().await;
            let port = free_port(&address).map_err(|error| Failure {
                kind: FailureKind::Internal,
                message: format!("no port for rank 0 is free: {error}"),
            })?;
            Some((address, port))
        }
        _ => None,
    };
    let op = match &own {
        Some((address, port)) => StoreOp::Set { key, value: StoreValue(told(address, *port).into_bytes()) },
        None => StoreOp::Get { key },
    };
    let question = StoreQuestion { generation: place.generation, id: 1, op };
    if events.send(TrainerEvent::Ask(lease, question)).await.is_err() {
        return Ok(Meeting::Stopped(None));
    }
    let value = match timeout(settings.timeout, answer(lease, commands)).await {
        Ok(Answer::Value(Some(value))) => value,
        Ok(Answer::Value(None)) | Err(_) => return Ok(Meeting::Missed),
        Ok(Answer::Stopped(how)) => return Ok(Meeting::Stopped(how)),
    };
    let (address, port) = match own {
        Some(own) => own,
        None => read(&value.0).ok_or_else(|| Failure {
            kind: FailureKind::Internal,
            message: "what the coordinator says of where rank 0 listens is no address and port".to_owned(),
        })?,
    };
    Ok(Meeting::Met(Rank { rank, ranks: place.shares.ranks(), address, port }))
}

enum Answer {
    Value(Option<StoreValue>),
    Stopped(Option<HowToStop>),
}

async fn answer(lease: LeaseKey, commands: &mut mpsc::UnboundedReceiver<RunnerCommand>) -> Answer {
    loop {
        match commands.recv().await {
            None => return Answer::Stopped(None),
            Some(RunnerCommand::Stop(meant, how)) if meant == lease => return Answer::Stopped(Some(how)),
            Some(RunnerCommand::Answer(meant, _, value)) if meant == lease => return Answer::Value(value),
            // Of an attempt before this one, or a make-up that is known. A start cannot come: one attempt at a time.
            Some(
                RunnerCommand::Stop(..)
                | RunnerCommand::Answer(..)
                | RunnerCommand::Regang(..)
                | RunnerCommand::Start(_),
            ) => {}
        }
    }
}

fn told(address: &str, port: u16) -> String {
    format!("{port} {address}")
}

fn read(value: &[u8]) -> Option<(String, u16)> {
    let (port, address) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    Some((address.to_owned(), port.parse().ok()?))
}

/// A port on which nobody listens at any address of this machine, of the kind that `address` is. Nothing listens on it
/// here either: it is only looked for.
fn free_port(address: &str) -> std::io::Result<u16> {
    let (socket, any) = match address.parse() {
        Ok(IpAddr::V6(_)) => (TcpSocket::new_v6()?, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        Ok(IpAddr::V4(_)) | Err(_) => (TcpSocket::new_v4()?, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
    };
    socket.bind(SocketAddr::new(any, 0))?;
    Ok(socket.local_addr()?.port())
}

/// Whether a program says, in the message of its failure, that somebody listens on its port.
pub(crate) fn says_port_taken(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["address already in use", "eaddrinuse", "address in use"].iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_rank_0_listens_survives_the_store() {
        for (address, port) in [("10.0.0.7", 1), ("::1", 65535), ("node-1.example", 29500)] {
            assert_eq!(read(told(address, port).as_bytes()), Some((address.to_owned(), port)));
        }
        for damaged in ["", "29500", "70000 a", "x 10.0.0.7"] {
            assert_eq!(read(damaged.as_bytes()), None, "{damaged}");
        }
    }

    #[tokio::test]
    async fn the_port_that_is_found_can_be_listened_on() {
        for address in ["127.0.0.1", "a name"] {
            let port = free_port(address).unwrap();
            std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        let torch = "[rank0]: torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. port: 4711, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use";
        assert!(says_port_taken(torch));
        assert!(says_port_taken(
            "the program exited with status 1; its last lines were:\nOSError: [Errno 98] Address already in use"
        ));
        assert!(!says_port_taken("ConnectionResetError: [Errno 104] Connection reset by peer"));
    }
}
