//! How questions reach whoever answers: over the network to a coordinator, or straight into the same service over a
//! folder on which none runs. So an answer is made in one place, wherever it is asked for.
//!
//! Must not know any question.

use crate::grpc::control::ControlService;
use spotsweep_wire::v1::control_server::ControlServer;
use std::task::{Context, Poll};
use tonic::{
    body::Body,
    codegen::{BoxFuture, Service, StdError, http},
    transport::Channel,
};

/// A way to a Control service.
#[derive(Clone)]
pub(crate) enum Transport {
    /// To a coordinator.
    Remote(Channel),
    /// Into this process.
    Folder(ControlServer<ControlService>),
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Remote(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::Folder(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Remote(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
            Self::Folder(service) => {
                let answer = service.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
        }
    }
}
