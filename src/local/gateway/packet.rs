//! IPv4 packets, taken apart and made.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::local::spec::GATEWAY_ADDRESS;

/// Bytes of an IPv4 header without options.
const HEADER: usize = 20;
/// Bytes of a UDP or ICMP header.
const SHORT_HEADER: usize = 8;

/// Two endpoints that talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    /// In the sandbox.
    pub(super) inside: SocketAddrV4,
    /// Whom the sandbox talks to.
    pub(super) outside: SocketAddrV4,
}

/// What a packet from the sandbox is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// TCP; `opens` if it asks for a connection.
    Tcp { flow: Flow, opens: bool },
    /// UDP with its content.
    Udp { flow: Flow, content: &'a [u8] },
    /// Another protocol that deserves an answer.
    Other,
    /// Nothing to answer: not IPv4, broken, a fragment, or an error message.
    Noise,
}

/// Takes a packet apart.
pub(super) fn kind(packet: &[u8]) -> Kind<'_> {
    read(packet).unwrap_or(Kind::Noise)
}

fn read(packet: &[u8]) -> Option<Kind<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.version() != 4 || ip.more_frags() || ip.frag_offset() != 0 {
        return None;
    }
    let (inside, outside) = (ip.src_addr(), ip.dst_addr());
    let flow = |from: u16, to: u16| Flow {
        inside: SocketAddrV4::new(inside, from),
        outside: SocketAddrV4::new(outside, to),
    };
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            let opens = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
            Some(Kind::Tcp { flow: flow(tcp.src_port(), tcp.dst_port()), opens })
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            if !udp.verify_checksum(&inside.into(), &outside.into()) {
                return None;
            }
            let content = ip.payload().get(SHORT_HEADER..usize::from(udp.len()))?;
            Some(Kind::Udp { flow: flow(udp.src_port(), udp.dst_port()), content })
        }
        IpProtocol::Icmp => {
            // an error about an error would never end
            let icmp = Icmpv4Packet::new_checked(ip.payload()).ok()?;
            (icmp.msg_type() == Icmpv4Message::EchoRequest).then_some(Kind::Other)
        }
        _ => Some(Kind::Other),
    }
}

/// Why a packet was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The rules forbid it.
    Prohibited,
    /// The other end is not there, or does not answer.
    Unreachable,
    /// The other end refuses a connection.
    Refused,
}

/// The answer to a packet that was not passed on; none for a packet that cannot be answered.
pub(super) fn refuse(packet: &[u8], refusal: Refusal) -> Option<Vec<u8>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let code = match refusal {
        Refusal::Prohibited => Icmpv4DstUnreachable::CommProhibited,
        Refusal::Unreachable => Icmpv4DstUnreachable::HostUnreachable,
        Refusal::Refused if ip.next_header() == IpProtocol::Tcp => return reset(packet),
        Refusal::Refused => Icmpv4DstUnreachable::PortUnreachable,
    };
    // the header and the first eight bytes, by which the sandbox knows what is meant
    let quoted = packet.get(..packet.len().min(usize::from(ip.header_len()) + SHORT_HEADER))?;
    let mut answer = header(GATEWAY_ADDRESS, ip.src_addr(), IpProtocol::Icmp, SHORT_HEADER + quoted.len());
    let body = answer.get_mut(HEADER..)?;
    body[0] = 3;
    body[1] = code.into();
    body[SHORT_HEADER..].copy_from_slice(quoted);
    Icmpv4Packet::new_unchecked(body).fill_checksum();
    Some(answer)
}

/// A reset in answer to a request for a connection.
fn reset(packet: &[u8]) -> Option<Vec<u8>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let repr = TcpRepr {
        src_port: tcp.dst_port(),
        dst_port: tcp.src_port(),
        control: TcpControl::Rst,
        seq_number: TcpSeqNumber(0),
        ack_number: Some(tcp.seq_number() + tcp.segment_len()),
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None, None, None],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = (ip.dst_addr(), ip.src_addr());
    let mut answer = header(from, to, IpProtocol::Tcp, repr.buffer_len());
    let mut target = TcpPacket::new_unchecked(answer.get_mut(HEADER..)?);
    repr.emit(&mut target, &IpAddress::Ipv4(from), &IpAddress::Ipv4(to), &ChecksumCapabilities::default());
    Some(answer)
}

/// A datagram to the sandbox; none if it is too large for a packet.
pub(super) fn datagram(flow: Flow, content: &[u8]) -> Option<Vec<u8>> {
    const LARGEST: usize = 65_535 - HEADER - SHORT_HEADER;
    if content.len() > LARGEST {
        return None;
    }
    let repr = UdpRepr { src_port: flow.outside.port(), dst_port: flow.inside.port() };
    let (from, to) = (*flow.outside.ip(), *flow.inside.ip());
    let mut packet = header(from, to, IpProtocol::Udp, SHORT_HEADER + content.len());
    let mut target = UdpPacket::new_unchecked(packet.get_mut(HEADER..)?);
    let fill = |body: &mut [u8]| body.copy_from_slice(content);
    let (from, to) = (IpAddress::Ipv4(from), IpAddress::Ipv4(to));
    repr.emit(&mut target, &from, &to, content.len(), fill, &ChecksumCapabilities::default());
    Some(packet)
}

/// A packet with an IPv4 header and room for the rest.
fn header(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, length: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER + length];
    let repr =
        Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: length, hop_limit: 64 };
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow { inside: "198.18.0.2:4000".parse().unwrap(), outside: "203.0.113.7:53".parse().unwrap() }
    }

    #[test]
    fn a_datagram_is_understood_as_it_was_made() {
        let back = Flow { inside: flow().outside, outside: flow().inside };
        let packet = datagram(back, b"hello").unwrap();
        assert_eq!(kind(&packet), Kind::Udp { flow: flow(), content: b"hello" });
        assert_eq!(datagram(back, &vec![0; 65_535]), None);
    }

    #[test]
    fn a_refusal_quotes_what_it_refuses_and_is_not_refused_itself() {
        let back = Flow { inside: flow().outside, outside: flow().inside };
        let packet = datagram(back, b"hello").unwrap();
        let refusal = refuse(&packet, Refusal::Prohibited).unwrap();
        let ip = Ipv4Packet::new_checked(&refusal[..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!((ip.src_addr(), ip.dst_addr()), (GATEWAY_ADDRESS, *flow().inside.ip()));
        assert_eq!(ip.payload()[..2], [3, 13]);
        assert_eq!(ip.payload()[8..], packet[..28]);
        assert_eq!(kind(&refusal), Kind::Noise);
    }

    #[test]
    fn whatever_a_sandbox_sends_is_survived() {
        for length in 0..64 {
            for first in [0x45, 0x4f, 0x60, 0xff] {
                for protocol in [1, 6, 17, 47] {
                    let mut packet = vec![first; length];
                    if length > 9 {
                        packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
                        packet[6..8].copy_from_slice(&[0, 0]);
                        packet[9] = protocol;
                    }
                    let _ = kind(&packet);
                    let _ = refuse(&packet, Refusal::Refused);
                }
            }
        }
    }
}
