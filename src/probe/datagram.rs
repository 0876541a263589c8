//! The datagrams that the bots of a probe send each other: what each says of itself, as bytes and back.

/// How long a datagram of a probe is, in bytes.
pub(crate) const LENGTH: usize = 12;

/// Marks the datagrams of one run, so that nothing else is counted: 8 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) [u8; 8]);

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// To be heard, from the registered socket.
    Hello,
    /// To be heard, from a socket that the server has not seen before.
    Fresh,
    /// To be echoed.
    Ping,
    /// A ping's echo.
    Echo,
}

/// One of two introduced bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The one that asked for the introduction: a game's client.
    Asker,
    /// The other.
    Host,
}

impl Side {
    /// Each at the index `self as usize`.
    pub(crate) const BOTH: [Self; 2] = [Self::Asker, Self::Host];

    /// The partner's.
    pub(crate) fn other(self) -> Self {
        Self::BOTH[1 - self as usize]
    }
}

/// What a datagram says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag {
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Which of the introductions it belongs to.
    pub(crate) link: u8,
    /// The side that sent it, or that sent the ping that it echoes.
    pub(crate) side: Side,
    /// Which one of several.
    pub(crate) number: u8,
}

impl Token {
    /// The datagram's content.
    pub(crate) fn encode(self, tag: Tag) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.0);
        bytes[8..].copy_from_slice(&[tag.purpose as u8, tag.link, tag.side as u8, tag.number]);
        bytes
    }

    /// What a datagram says, if it is one of this run.
    pub(crate) fn decode(self, payload: &[u8]) -> Option<Tag> {
        const PURPOSES: [Purpose; 4] =
            [Purpose::Hello, Purpose::Fresh, Purpose::Ping, Purpose::Echo];
        let &[purpose, link, side, number] = payload.strip_prefix(&self.0)? else { return None };
        let purpose = *PURPOSES.get(usize::from(purpose))?;
        let side = *Side::BOTH.get(usize::from(side))?;
        Some(Tag { purpose, link, side, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_strays_do_not() {
        let token = Token(*b"thisrun!");
        for purpose in [Purpose::Hello, Purpose::Fresh, Purpose::Ping, Purpose::Echo] {
            for side in Side::BOTH {
                let tag = Tag { purpose, link: 7, side, number: 200 };
                let bytes = token.encode(tag);
                assert_eq!(token.decode(&bytes), Some(tag));
                assert_eq!(Token(*b"otherrun").decode(&bytes), None);
                assert_eq!(token.decode(&bytes[..11]), None);
            }
        }
        assert_eq!(token.decode(b"thisrun!\xff000"), None);
        assert_eq!(token.decode(b""), None);
    }
}
