//! Sends nothing: the datagrams that the two players of a probe send each other, and no stray among them.

/// How long a datagram of a probe is, in bytes.
pub(crate) const LENGTH: usize = 16;

/// Marks the datagrams of one run, so that nothing else is counted: 8 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub [u8; 8]);

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be heard, from the registered socket.
    Hello,
    /// To be heard, from a socket that the server has not seen before.
    Fresh,
    /// To be echoed.
    Ping,
    /// A ping's echo.
    Echo,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Hello, Self::Fresh, Self::Ping, Self::Echo];
}

/// What a datagram says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// What it is for.
    pub(crate) kind: Kind,
    /// The player who sent it, or who sent the ping that it echoes.
    pub(crate) sender: u8,
    /// The relay port that it was sent to.
    pub(crate) port: u16,
    /// Which of its kind.
    pub(crate) number: u16,
}

impl Token {
    /// The datagram's content.
    pub(crate) fn encode(self, tag: Tag) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.0);
        bytes[8] = tag.kind as u8;
        bytes[9] = tag.sender;
        bytes[10..12].copy_from_slice(&tag.port.to_be_bytes());
        bytes[12..14].copy_from_slice(&tag.number.to_be_bytes());
        bytes
    }

    /// What a datagram says, if it is one of this run.
    pub(crate) fn decode(self, payload: &[u8]) -> Option<Tag> {
        let bytes: &[u8; LENGTH] = payload.try_into().ok()?;
        let kind = *Kind::ALL.get(usize::from(bytes[8]))?;
        (bytes[..8] == self.0).then_some(Tag {
            kind,
            sender: bytes[9],
            port: u16::from_be_bytes([bytes[10], bytes[11]]),
            number: u16::from_be_bytes([bytes[12], bytes[13]]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_strays_do_not() {
        let token = Token(*b"thisrun!");
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            let tag = Tag { kind, sender: 7, port: 50_001, number: 300 };
            let bytes = token.encode(tag);
            assert_eq!(token.decode(&bytes), Some(tag));
            assert_eq!(Token(*b"otherrun").decode(&bytes), None);
            assert_eq!(token.decode(&bytes[..15]), None);
        }
        assert_eq!(token.decode(b"thisrun!\xff0000000"), None);
        assert_eq!(token.decode(b""), None);
    }
}
