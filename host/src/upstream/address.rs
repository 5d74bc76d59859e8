//! Which addresses may be connected to: the public ones, and those an operator listed. Pure.
//!
//! A plugin names hosts, DNS names addresses, and neither is trusted: a name that resolves to the metadata service of a
//! cloud must not be reachable through a token endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::settings::AddressBlock;

/// What stands in the way of connecting to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressClass {
    /// Anyone's: nothing does.
    Public,
    /// This machine.
    Loopback,
    /// A private network (RFC 1918, RFC 4193) or one shared behind a carrier (RFC 6598).
    Private,
    /// This link (RFC 3927, RFC 4291); most clouds keep their metadata service here.
    LinkLocal,
    /// A cloud's metadata service outside the link-local range.
    Metadata,
    /// Nobody's: unspecified, reserved, documentation, benchmarking.
    Reserved,
    /// Many at once.
    Multicast,
}

/// Decides about addresses for one provider.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    /// What the operator listed.
    pub listed: Vec<AddressBlock>,
    /// Whether this machine may be reached without being listed.
    pub loopback: bool,
}

/// Azure's platform endpoint: a public address that answers inside a virtual machine only.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

// === impl AddressRules ===

impl AddressRules {
    /// Allows an address, or says what it is.
    ///
    /// # Errors
    ///
    /// The class of an address that is neither public nor listed.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressClass> {
        let address = address.to_canonical();
        if self.listed.iter().any(|block| block.contains(address)) {
            return Ok(());
        }
        match classify(address) {
            AddressClass::Public => Ok(()),
            AddressClass::Loopback if self.loopback => Ok(()),
            refused => Err(refused),
        }
    }
}

// === impl AddressClass ===

impl AddressClass {
    /// For an operator's line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Reserved => "reserved",
            Self::Multicast => "multicast",
        }
    }
}

// === impl AddressBlock ===

impl AddressBlock {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address. Bits behind the prefix must be zero: a block that names a host
    /// is a typing mistake more often than not.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = match text.split_once('/') {
            Some((base, prefix)) => (base.parse::<IpAddr>().ok()?, Some(prefix)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let width = bits(base).1;
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let block = Self { base, prefix };
        (prefix <= width && block.contains(base) && bits(base).0 & !mask(prefix, width) == 0)
            .then_some(block)
    }

    /// Whether an address lies in this block. An IPv4 address written inside IPv6 (`::ffff:0:0/96`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (base, width) = bits(self.base);
        let (address, address_width) = bits(address.to_canonical());
        width == address_width && (base ^ address) & mask(self.prefix, width) == 0
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

/// The leading `prefix` of `width` bits.
fn mask(prefix: u8, width: u8) -> u128 {
    let all = if width == 32 {
        u128::from(u32::MAX)
    } else {
        u128::MAX
    };
    all & !all.checked_shr(u32::from(prefix)).unwrap_or(0)
}

/// What an address is, looking through every form of IPv6 that carries an IPv4 address to a gateway.
pub fn classify(address: IpAddr) -> AddressClass {
    match address.to_canonical() {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    match address.octets() {
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] => {
            AddressClass::Private
        }
        [169, 254, ..] => AddressClass::LinkLocal,
        _ if address == AZURE_PLATFORM => AddressClass::Metadata,
        [224..=239, ..] => AddressClass::Multicast,
        // RFC 6890 and its additions: this network, protocol assignments, documentation, 6to4 anycast, benchmarking, class E.
        [0 | 240..=255, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        classify_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Reserved,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // IPv4-compatible (RFC 4291) and IPv4-translated (RFC 2765): both deprecated, both still routed by some stacks.
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        // NAT64 (RFC 6052): a gateway on the way turns it into IPv4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // Locally chosen NAT64 prefixes (RFC 8215): where the IPv4 address sits is anyone's guess.
        [0x64, 0xff9b, 1, ..] => AddressClass::Private,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo (RFC 4380), benchmarking, ORCHID: the protocol assignments of 2001::/23.
        [0x2001, 0..=0x1ff, ..] => AddressClass::Reserved,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x100, 0, 0, 0, ..] => {
            AddressClass::Reserved
        }
        [0xfc00..=0xfdff, ..] => AddressClass::Private,
        // Link-local, and the site-local range that was taken back (RFC 3879).
        [0xfe80..=0xfeff, ..] => AddressClass::LinkLocal,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        // ISATAP (RFC 5214) tunnels to the IPv4 address in its last half.
        [.., 0x0 | 0x200, 0x5efe, high, low] => embedded(high, low),
        // Only 2000::/3 is handed out to anyone.
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddressClass {
        classify(text.parse().expect(text))
    }

    #[test]
    fn nothing_inside_a_network_is_public() {
        for (address, expected) in [
            ("127.0.0.1", AddressClass::Loopback),
            ("127.255.0.9", AddressClass::Loopback),
            ("::1", AddressClass::Loopback),
            ("10.1.2.3", AddressClass::Private),
            ("172.31.255.255", AddressClass::Private),
            ("192.168.0.1", AddressClass::Private),
            ("100.100.100.200", AddressClass::Private),
            ("fd00:ec2::254", AddressClass::Private),
            ("169.254.169.254", AddressClass::LinkLocal),
            ("fe80::1", AddressClass::LinkLocal),
            ("168.63.129.16", AddressClass::Metadata),
            ("0.0.0.0", AddressClass::Reserved),
            ("::", AddressClass::Reserved),
            ("255.255.255.255", AddressClass::Reserved),
            ("2001:db8::1", AddressClass::Reserved),
            ("224.0.0.1", AddressClass::Multicast),
            ("ff02::1", AddressClass::Multicast),
        ] {
            assert_eq!(class(address), expected, "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_hides_in_no_form_of_ipv6() {
        for hidden in [
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "2600::5efe:169.254.169.254",
        ] {
            assert_eq!(class(hidden), AddressClass::LinkLocal, "{hidden}");
        }
        assert_ne!(class("2001:0:a9fe:a9fe::1"), AddressClass::Public);
        assert_ne!(class("64:ff9b:1::a9fe:a9fe"), AddressClass::Public);
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::1.1.1.1",
        ] {
            assert_eq!(class(address), AddressClass::Public, "{address}");
        }
    }

    #[test]
    fn a_listed_block_opens_that_block_and_no_other() {
        let rules = AddressRules {
            listed: vec![
                AddressBlock::parse("10.1.0.0/16").unwrap(),
                AddressBlock::parse("fd00::5").unwrap(),
            ],
            loopback: false,
        };
        for good in ["10.1.255.1", "::ffff:10.1.0.7", "fd00::5", "8.8.8.8"] {
            assert_eq!(rules.check(good.parse().unwrap()), Ok(()), "{good}");
        }
        for bad in ["10.2.0.1", "fd00::6", "127.0.0.1", "169.254.169.254"] {
            assert!(rules.check(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_block_is_written_right_or_refused() {
        assert!(
            AddressBlock::parse("0.0.0.0/0")
                .is_some_and(|all| all.contains("9.9.9.9".parse().unwrap()))
        );
        assert!(
            AddressBlock::parse("::/0")
                .is_some_and(|all| !all.contains("9.9.9.9".parse().unwrap()))
        );
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0",
            "fd00::/129",
            "host",
            "::ffff:0:0/96",
        ] {
            assert!(AddressBlock::parse(bad).is_none(), "{bad}");
        }
    }
}
