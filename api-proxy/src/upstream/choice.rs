//! Which of several channels is next: smooth weighted round robin.
//!
//! It is exact where chance is not: of any ten requests to channels of weight 3 and 7, three and seven arrive, well mixed. Whoever
//! tests or debugs a Lab knows what comes next.

/// Whose turn it is among channels, by their index.
#[derive(Debug)]
pub(super) struct Turns(Vec<i64>);

impl Turns {
    /// Nobody had a turn yet.
    pub(super) fn new(channels: usize) -> Self {
        Self(vec![0; channels])
    }

    /// The next of these, given each one's index and weight; `None` when there are none.
    pub(super) fn next(&mut self, among: impl Iterator<Item = (usize, u16)>) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (index, weight) in among {
            let weight = i64::from(weight.max(1));
            total += weight;
            self.0[index] += weight;
            if best.is_none_or(|best| self.0[index] > self.0[best]) {
                best = Some(index);
            }
        }
        if let Some(best) = best {
            self.0[best] -= total;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights() {
        let mut turns = Turns::new(3);
        let order: Vec<_> = (0..7).filter_map(|_| turns.next([(0, 5), (1, 1), (2, 1)].into_iter())).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
        let again: Vec<_> = (0..4).filter_map(|_| turns.next([(1, 1), (2, 3)].into_iter())).collect();
        assert_eq!(again, [2, 1, 2, 2]);
        assert_eq!(turns.next(std::iter::empty()), None);
    }
}
