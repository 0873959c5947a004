//! Sets of processors or NUMA nodes, written as cpuset(7) writes them: `0-3,7`.

/// Higher numbers are a slip of the pen: no kernel is built for as many. runc has the same limit.
const MAX_NUMBER: usize = 64 * 1024;

/// A set of small numbers: bit `n % 64` of word `n / 64` stands for `n`, as system calls want it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet(Vec<u64>);

impl NumberSet {
    /// Reads a list. Blanks around its parts and empty parts are passed over, as in runc; a list of none is the empty set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, part)?, number(last, part)?);
            if first > last {
                return Err(format!("{part:?} ends before it begins"));
            }
            for number in first..=last {
                set.insert(number);
            }
        }
        Ok(set)
    }

    /// Gives the set as a mask.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Says whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts what is in the set.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }
}

fn number(text: &str, part: &str) -> Result<usize, String> {
    // `parse` takes a sign.
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number && number <= MAX_NUMBER => Ok(number),
        _ if is_number => Err(format!("{part:?} is above {MAX_NUMBER}")),
        _ => Err(format!("{part:?} is not a number or a range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (text, words) in [
            ("", vec![]),
            (" , ,", vec![]),
            ("0", vec![1]),
            ("0-3,7", vec![0b1000_1111]),
            (" 1 ,, 3-3", vec![0b1010]),
            ("63,64", vec![1 << 63, 1]),
            ("128", vec![0, 0, 1]),
            ("0-127", vec![u64::MAX, u64::MAX]),
        ] {
            assert_eq!(NumberSet::parse(text).unwrap().words(), words, "{text:?}");
        }
        assert_eq!(NumberSet::parse("65536").unwrap().words().len(), 1025);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (text, cause) in [
            ("a", "\"a\" is not a number or a range"),
            ("-1", "\"-1\" is not a number or a range"),
            ("+1", "\"+1\" is not a number or a range"),
            ("1-", "\"1-\" is not a number or a range"),
            ("1-2-3", "\"1-2-3\" is not a number or a range"),
            ("0,3-1", "\"3-1\" ends before it begins"),
            ("65537", "\"65537\" is above 65536"),
            ("0-99999999999999999999", "\"0-99999999999999999999\" is above 65536"),
        ] {
            assert_eq!(NumberSet::parse(text).unwrap_err(), cause);
        }
    }
}
