//! Shuffle sharding: each flow is dealt a hand of queues, so that two flows seldom share all of theirs.

/// A hand never has more cards.
pub const MAX_HAND: usize = 15;

/// Of a hash, the bits that may be used without the last cards becoming uneven.
const MAX_HASH_BITS: f64 = 60.0;

/// Deals hands from a deck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealer {
    deck: usize,
    hand: usize,
}

/// Cards of one hand, each different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    cards: [usize; MAX_HAND],
    size: usize,
}

impl Hand {
    pub fn cards(&self) -> &[usize] {
        &self.cards[..self.size]
    }
}

impl Dealer {
    pub fn new(deck: usize, hand: usize) -> Result<Self, String> {
        if deck == 0 || hand == 0 {
            return Err(format!("deckSize {deck} or handSize {hand} is not positive"));
        }
        if hand > deck {
            return Err(format!("handSize {hand} is greater than deckSize {deck}"));
        }
        if deck > 1 << 26 {
            return Err(format!("deckSize {deck} is impractically large"));
        }
        if ((deck as f64).log2() * hand as f64).ceil() > MAX_HASH_BITS || hand > MAX_HAND {
            return Err(format!(
                "required entropy bits of deckSize {deck} and handSize {hand} is greater than {MAX_HASH_BITS}"
            ));
        }
        Ok(Self { deck, hand })
    }

    /// How many cards a hand has.
    pub fn hand(&self) -> u32 {
        u32::try_from(self.hand).unwrap_or(u32::MAX)
    }

    /// The hand of a flow. Every hand is as likely as any other if hashes are.
    pub fn deal(&self, mut hash: u64) -> Hand {
        // each card is first chosen among those that are left, then counted past those that are gone
        let mut left_at = [0; MAX_HAND];
        let mut hand = Hand { cards: [0; MAX_HAND], size: self.hand };
        for drawn in 0..self.hand {
            let left = (self.deck - drawn) as u64;
            left_at[drawn] = (hash % left) as usize;
            hash /= left;
            hand.cards[drawn] = left_at[..drawn]
                .iter()
                .rev()
                .fold(left_at[drawn], |card, earlier| if card >= *earlier { card + 1 } else { card });
        }
        hand
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_dealt() {
        for (deck, hand, works) in
            [(128, 6, true), (1, 1, true), (0, 1, false), (4, 5, false), (1 << 27, 1, false), (512, 8, false)]
        {
            assert_eq!(Dealer::new(deck, hand).is_ok(), works, "{deck} {hand}");
        }
    }

    #[test]
    fn all_hands_are_dealt_equally_often() {
        let dealer = Dealer::new(5, 3).unwrap();
        let mut seen: HashMap<Vec<usize>, u32> = HashMap::new();
        for hash in 0..600 {
            *seen.entry(dealer.deal(hash).cards().to_vec()).or_default() += 1;
        }
        assert_eq!(seen.len(), 60, "5 * 4 * 3 hands");
        assert!(seen.values().all(|count| *count == 10));
    }

    proptest! {
        #[test]
        fn cards_of_a_hand_differ_and_are_of_the_deck(
            (deck, hand) in (1_usize..200).prop_flat_map(|deck| (Just(deck), 1..=deck.min(7))), hash: u64,
        ) {
            let dealt = Dealer::new(deck, hand).unwrap().deal(hash);
            let mut cards = dealt.cards().to_vec();
            prop_assert!(cards.iter().all(|card| *card < deck));
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), hand);
        }
    }
}
