//! Rules, as the programs read them.

use bytemuck::Zeroable;

use crate::types::{self, constant, rule_action, rule_condition, rules_word};

/// How many rules there can be.
pub const MAX_RULES: usize = constant::MAX_RULES.0 as usize;
/// How many address ranges a consumer can have.
pub const MAX_RANGES: usize = constant::MAX_RANGES.0 as usize;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RuleAction {
    /// Pins are holds, whoever made them.
    Enforce = rule_action::RULE_ENFORCE.0,
    /// Pins are no holds.
    Ignore = rule_action::RULE_IGNORE.0,
    /// No long-term pins: the process is killed.
    Deny = rule_action::RULE_DENY.0,
    /// As if no later rule were there.
    Allow = rule_action::RULE_ALLOW.0,
    /// Pins of this consumer are long-term, whatever they say.
    Longterm = rule_action::RULE_LONGTERM.0,
    /// Never refused.
    Exempt = rule_action::RULE_EXEMPT.0,
    /// Files are held at level layout.
    Layout = rule_action::RULE_LAYOUT.0,
    /// Files are held at level swapfile.
    Swapfile = rule_action::RULE_SWAPFILE.0,
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

/// The other bank than the one in use: index of its first slot, and its bit.
pub(crate) const fn other_bank(word: u32) -> (u32, u32) {
    match word & rules_word::RULES_BANK.0 {
        0 => (constant::MAX_RULES.0, rules_word::RULES_BANK.0),
        _ => (0, 0),
    }
}

/// The word that switches to these rules.
pub(crate) fn word(rules: &[Rule], bank: u32, old: u32) -> u32 {
    let count = u32::try_from(rules.len().min(MAX_RULES)).unwrap_or(0);
    let bits = rules.iter().map(|rule| match rule.action {
        RuleAction::Longterm => rules_word::RULES_LONGTERM,
        RuleAction::Exempt => rules_word::RULES_EXEMPT,
        RuleAction::Layout | RuleAction::Swapfile => rules_word::RULES_LEVELS,
        _ => rules_word::RULES_PINS,
    });
    let kept = old & rules_word::RULES_FILES.0;
    bits.fold(count | bank | kept, |word, bit| word | bit.0)
}

/// As the programs compare it.
pub(crate) fn encode(rule: &Rule) -> types::rule {
    let when = |is_there: bool, bit: rule_condition| if is_there { bit.0 } else { 0 };
    let (dev, ino) = rule.file.unwrap_or_default();
    let (cgroup, cgroup_level) = rule.cgroup.unwrap_or_default();
    let consumer = rule.consumer.as_deref().unwrap_or_default();
    let count = consumer.len().min(MAX_RANGES);
    let mut encoded = types::rule {
        action: rule_action(rule.action as u32),
        conditions: rule_condition(
            when(rule.file.is_some(), rule_condition::RULE_PATH)
                | when(rule.uid.is_some(), rule_condition::RULE_UID)
                | when(rule.cgroup.is_some(), rule_condition::RULE_CGROUP)
                | when(rule.consumer.is_some(), rule_condition::RULE_CONSUMER),
        ),
        ino,
        dev,
        uid: rule.uid.unwrap_or_default(),
        cgroup,
        cgroup_level,
        ranges: u32::try_from(count).unwrap_or(0),
        ..Zeroable::zeroed()
    };
    for (slot, range) in encoded.range.chunks_exact_mut(2).zip(consumer) {
        slot.copy_from_slice(&[range.start, range.end]);
    }
    encoded
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
    fn a_rule_is_written_with_its_conditions() {
        let encoded = encode(&rule(RuleAction::Ignore));
        assert_eq!(encoded.action, rule_action::RULE_IGNORE);
        let conditions = rule_condition::RULE_UID.0 | rule_condition::RULE_CONSUMER.0;
        assert_eq!((encoded.conditions.0, encoded.uid), (conditions, 7));
        assert_eq!(
            (encoded.ranges, &encoded.range[..5]),
            (2, &[1, 2, 3, 4, 0][..])
        );
        let mut many = rule(RuleAction::Ignore);
        many.consumer = Some(vec![1..2; MAX_RANGES + 1]);
        assert_eq!(encode(&many).ranges, constant::MAX_RANGES.0);
    }

    #[test]
    fn the_word_switches_banks_and_keeps_the_file_rules() {
        let rules = [rule(RuleAction::Longterm), rule(RuleAction::Deny)];
        let (slot, bank) = other_bank(0);
        assert_eq!(
            (slot, bank),
            (constant::MAX_RULES.0, rules_word::RULES_BANK.0)
        );
        let word = word(&rules, bank, rules_word::RULES_FILES.0);
        let bits = [
            rules_word::RULES_BANK,
            rules_word::RULES_LONGTERM,
            rules_word::RULES_PINS,
            rules_word::RULES_FILES,
        ];
        assert_eq!(word, bits.iter().fold(2, |word, bit| word | bit.0));
        assert_eq!(other_bank(word), (0, 0));
    }
}
