//! How long a pair lives, and how much it may carry in that time.

use serde::{Deserialize, Serialize};

use crate::core::relay::DropReason;
use crate::limits::relay::{RelayLimits, UNHEARD_LIFETIME};
use crate::time::Timestamp;

/// The age of a pair and what it has carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub(super) created: Timestamp,
    /// When the pair ends, as long as not both players have been heard.
    pub(super) unheard_until: Option<Timestamp>,
    /// When a datagram was last forwarded. Until then, when the pair was created.
    pub(super) forwarded: Timestamp,
    /// Charged bytes, both directions together.
    pub(super) traffic: u64,
}

impl Life {
    pub(super) fn new(now: Timestamp) -> Self {
        let unheard_until = Some(now + UNHEARD_LIFETIME);
        Self { created: now, unheard_until, forwarded: now, traffic: 0 }
    }

    /// Whether both players were heard in time, so that the pair does not end for that.
    pub(super) fn is_settled(&self) -> bool {
        self.unheard_until.is_none()
    }

    /// Why nothing may pass any more, if that is so.
    pub(super) fn refusal(&self, limits: &RelayLimits, now: Timestamp) -> Option<DropReason> {
        if now.since(self.created) >= limits.lifetime {
            return Some(DropReason::LifetimeDuration);
        }
        if self.unheard_until.is_some_and(|end| now >= end) {
            return Some(DropReason::ReceiverUnheard);
        }
        (self.traffic >= limits.lifetime_traffic).then_some(DropReason::LifetimeTraffic)
    }

    /// Whether the pair is to be closed.
    pub(super) fn is_over(&self, limits: &RelayLimits, now: Timestamp) -> bool {
        now.since(self.forwarded) >= limits.idle_timeout || self.refusal(limits, now).is_some()
    }
}
