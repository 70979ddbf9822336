//! Rules, as the programs read them.

/// How many rules there can be.
pub const MAX_RULES: usize = 64;
/// How many address ranges a consumer can have.
pub const MAX_RANGES: usize = 4;
/// Bytes of `struct rule`.
pub(crate) const RULE_LEN: usize = 104;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleAction {
    /// Pins are holds, whoever made them.
    Enforce = 1,
    /// Pins are no holds.
    Ignore = 2,
    /// No long-term pins: the process is killed.
    Deny = 3,
    /// As if no later rule were there.
    Allow = 4,
    /// Pins of this consumer are long-term, whatever they say.
    Longterm = 5,
    /// Never refused.
    Exempt = 6,
    /// Files are held at level layout.
    Layout = 7,
    /// Files are held at level swapfile.
    Swapfile = 8,
}

/// A rule with everything looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub action: RuleAction,
    /// File or directory: device (`s_dev`, kernel encoding) and inode number.
    pub file: Option<(u32, u64)>,
    /// User.
    pub uid: Option<u32>,
    /// cgroup v2 id, and its depth.
    pub cgroup: Option<(u64, u32)>,
    /// Kernel addresses: code of the consumer. Empty: matches nobody.
    pub consumer: Option<Vec<std::ops::Range<u64>>>,
}

const RULES_BANK: u32 = 0x100;
const RULES_LONGTERM: u32 = 0x200;
const RULES_EXEMPT: u32 = 0x400;
const RULES_PINS: u32 = 0x800;
/// `file_rules` is not empty.
pub(crate) const RULES_FILES: u32 = 0x1000;
const RULES_LEVELS: u32 = 0x2000;

/// The other bank than the one in use: index of its first slot, and its bit.
pub(crate) fn other_bank(word: u32) -> (u32, u32) {
    if word & RULES_BANK == 0 {
        (u32::try_from(MAX_RULES).unwrap_or(0), RULES_BANK)
    } else {
        (0, 0)
    }
}

/// The word that switches to these rules.
pub(crate) fn rules_word(rules: &[Rule], bank: u32, old: u32) -> u32 {
    let count = u32::try_from(rules.len().min(MAX_RULES)).unwrap_or(0);
    let bits = rules.iter().map(|rule| match rule.action {
        RuleAction::Longterm => RULES_LONGTERM,
        RuleAction::Exempt => RULES_EXEMPT,
        RuleAction::Layout | RuleAction::Swapfile => RULES_LEVELS,
        _ => RULES_PINS,
    });
    bits.fold(count | bank | old & RULES_FILES, |word, bit| word | bit)
}

/// `struct rule`.
pub(crate) fn encode(rule: &Rule) -> [u8; RULE_LEN] {
    let mut bytes = [0; RULE_LEN];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let conditions = u32::from(rule.file.is_some())
        | u32::from(rule.uid.is_some()) << 1
        | u32::from(rule.cgroup.is_some()) << 2
        | u32::from(rule.consumer.is_some()) << 3;
    put(0, &(rule.action as u32).to_ne_bytes());
    put(4, &conditions.to_ne_bytes());
    let (dev, ino) = rule.file.unwrap_or_default();
    put(8, &ino.to_ne_bytes());
    put(16, &dev.to_ne_bytes());
    put(20, &rule.uid.unwrap_or_default().to_ne_bytes());
    let (cgroup, level) = rule.cgroup.unwrap_or_default();
    put(24, &cgroup.to_ne_bytes());
    put(32, &level.to_ne_bytes());
    let ranges = rule.consumer.as_deref().unwrap_or_default();
    let count = ranges.len().min(MAX_RANGES);
    put(36, &u32::try_from(count).unwrap_or(0).to_ne_bytes());
    for (i, range) in ranges.iter().take(MAX_RANGES).enumerate() {
        put(40 + 16 * i, &range.start.to_ne_bytes());
        put(48 + 16 * i, &range.end.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: RuleAction) -> Rule {
        Rule {
            action,
            file: None,
            uid: Some(7),
            cgroup: None,
            consumer: Some(vec![1..2, 3..4]),
        }
    }

    #[test]
    fn a_rule_is_written_at_the_offsets_of_the_header() {
        let bytes = encode(&rule(RuleAction::Ignore));
        assert_eq!(bytes[0], 2);
        assert_eq!(bytes[4], 2 | 8);
        assert_eq!(bytes[20], 7);
        assert_eq!(bytes[36], 2);
        assert_eq!((bytes[40], bytes[48], bytes[56], bytes[64]), (1, 2, 3, 4));
    }

    #[test]
    fn the_word_switches_banks_and_keeps_the_file_rules() {
        let rules = [rule(RuleAction::Longterm), rule(RuleAction::Deny)];
        let (slot, bank) = other_bank(0);
        assert_eq!((slot, bank), (64, RULES_BANK));
        let word = rules_word(&rules, bank, RULES_FILES);
        assert_eq!(
            word,
            2 | RULES_BANK | RULES_LONGTERM | RULES_PINS | RULES_FILES
        );
        assert_eq!(other_bank(word), (0, 0));
    }
}
