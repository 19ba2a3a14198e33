//! How long a doppler that is read from is read: until it has left the set and its stream has ended, or for a while after.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// What the one who knows the set and the one who reads a doppler agree upon. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Stay(watch::Sender<Phase>);

/// How long a doppler that has left the set is read on, at most.
const DRAINED: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stays,
    /// The set has it no more: it is read to the end of its stream.
    Leaves,
    /// Nobody reads it any more.
    Left,
}

impl Default for Stay {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Stays))
    }
}

impl Stay {
    /// Says whether the set has the doppler. False when nobody reads it any more: a new reader must be started.
    pub fn set(&self, is_in_set: bool) -> bool {
        let mut is_read = true;
        self.0.send_if_modified(|phase| {
            let next = match (*phase, is_in_set) {
                (Phase::Left, _) => Phase::Left,
                (_, true) => Phase::Stays,
                (_, false) => Phase::Leaves,
            };
            is_read = next != Phase::Left;
            std::mem::replace(phase, next) != next
        });
        is_read
    }

    /// Asked by a reader when a stream has ended: true when it is not to open another. From then on nobody reads the doppler anew.
    pub fn ends(&self) -> bool {
        self.0.send_if_modified(|phase| {
            let ends = *phase == Phase::Leaves;
            if ends {
                *phase = Phase::Left;
            }
            ends
        });
        *self.0.borrow() == Phase::Left
    }

    /// Waits until the doppler has been out of the set for 30 s. From then on nobody reads it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn given_up(&self) {
        let mut phase = self.0.subscribe();
        loop {
            // The sender lives as long as `self`.
            drop(phase.wait_for(|phase| *phase != Phase::Stays).await);
            let back = async { phase.wait_for(|phase| *phase == Phase::Stays).await.is_ok() };
            if timeout(DRAINED, back).await.is_err() && self.ends() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_ends_with_its_stream_once_the_set_has_let_go() {
        let stay = Stay::default();
        assert!(!stay.ends() && stay.set(true));
        assert!(stay.set(false) && stay.set(true), "it is back before its stream has ended");
        assert!(!stay.ends());
        assert!(stay.set(false));
        assert!(stay.ends() && stay.ends(), "and so do others that read the same doppler");
        assert!(!stay.set(true), "somebody else must read it now");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_given_up_after_a_while_and_not_when_it_comes_back() {
        let stay = Stay::default();
        stay.set(false);
        let waiting = stay.given_up();
        tokio::pin!(waiting);
        assert!(timeout(Duration::from_secs(29), &mut waiting).await.is_err());
        stay.set(true);
        assert!(timeout(Duration::from_secs(60), &mut waiting).await.is_err());
        stay.set(false);
        waiting.await;
        assert!(!stay.set(true));
    }
}
