//! How the worker, whose jail lets it make no sockets, gets connections to the agent.
//!
//! ```text
//! worker                      egress socket                        agent
//!   ask      ─────────────────── a byte ──────────────────────>      asked
//!   receive  <── a byte, and one end of a new pair of sockets ──     give: keeps the other end
//! ```
//!
//! Answers come in the order of the requests. Where the agent has no descriptor left its byte comes alone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// The agent waits until the worker wants a connection; false: the worker has gone. Dropping the future loses nothing.
pub async fn asked(socket: &mut UnixStream) -> bool {
    matches!(socket.read(&mut [0]).await, Ok(1))
}

/// The agent gives the worker one end of a new connection and keeps the other. An error: the worker has gone.
pub async fn give(socket: &UnixStream) -> io::Result<Option<UnixStream>> {
    let pair = StdUnixStream::pair().and_then(|(ours, theirs)| {
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        Ok((UnixStream::from_std(ours)?, theirs))
    });
    if let Err(error) = &pair {
        tracing::warn!(%error, "failed to make a connection for the worker");
    }
    let pair = pair.ok();
    let theirs = pair.as_ref().map(|(_, theirs)| [theirs.as_fd()]);
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(theirs) = &theirs {
            control.push(SendAncillaryMessage::ScmRights(theirs));
        }
        let byte = [IoSlice::new(&[0])];
        Ok(sendmsg(socket, &byte, &mut control, SendFlags::empty())?)
    };
    socket.async_io(Interest::WRITABLE, send).await?;
    Ok(pair.map(|(ours, _)| ours))
}

/// The worker asks for a connection. An error: the agent has gone.
pub async fn ask(socket: &mut UnixStream) -> io::Result<()> {
    socket.write_all(&[0]).await
}

/// The worker waits for what it asked for; none: there was no descriptor for it. An error: the agent has gone. Dropping the
/// future loses nothing.
pub async fn receive(socket: &UnixStream) -> io::Result<Option<UnixStream>> {
    let receive = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        let received = recvmsg(socket, &mut bytes, &mut control, RecvFlags::empty())?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(descriptor)
    };
    let descriptor = socket.async_io(Interest::READABLE, receive).await?;
    descriptor
        .map(|descriptor| UnixStream::from_std(descriptor.into()))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_comes_as_a_connection_of_its_own() {
        let (mut agent, mut worker) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            ask(&mut worker).await.unwrap();
        }
        let mut ends = Vec::new();
        for _ in 0..2 {
            assert!(asked(&mut agent).await);
            let agents = give(&agent).await.unwrap().unwrap();
            ends.push((agents, receive(&worker).await.unwrap().unwrap()));
        }
        for (number, (agents, workers)) in ends.iter_mut().enumerate() {
            agents.write_u8(number as u8).await.unwrap();
            assert_eq!(workers.read_u8().await.unwrap(), number as u8);
        }
        drop(worker);
        assert!(!asked(&mut agent).await);
        assert!(give(&agent).await.is_err());
    }

    #[tokio::test]
    async fn a_byte_alone_says_that_there_is_none_and_the_end_that_the_agent_has_gone() {
        let (mut agent, worker) = UnixStream::pair().unwrap();
        agent.write_all(&[0]).await.unwrap();
        assert!(receive(&worker).await.unwrap().is_none());
        drop(agent);
        assert!(receive(&worker).await.is_err());
    }
}
