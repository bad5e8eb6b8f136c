//! `trunkline demo`.

use std::io;
use std::net::SocketAddr;

use super::{complain, exit, fail};
use crate::demo::{http, stdio};
use crate::thread::StopReason;

pub(super) fn run(http: Option<SocketAddr>) -> u8 {
    let ended = match http {
        None => stdio::serve(io::stdin().lock(), io::stdout()).map(|()| StopReason::Signal),
        Some(address) => http::serve(address, |url| complain(&format!("listening on {url}"))),
    };
    match ended {
        Ok(StopReason::Signal | StopReason::InputEnded | StopReason::Upgrade) => exit::FINE,
        Ok(StopReason::OwnerEnded(name)) => {
            fail(&format!("demo: ended because the thread {name} had ended"))
        }
        Err(error) => fail(&format!("demo: {error}")),
    }
}
