//! Fixed texts: enums in which each variant has one, as a metric's label or a token on the wire, and counted nouns.
//!
//! The macro `labels!` declares such an enum, with the text beside each variant. An enum in which two variants have
//! the same text does not compile.

use std::fmt;

/// An enum in which each variant has a text of its own.
pub trait Label: Copy + fmt::Display + 'static {
    /// All variants, in the order in which they are declared.
    const ALL: &'static [Self];

    /// The text: lower case, words joined by hyphens.
    fn label(self) -> &'static str;

    /// The position in [`Self::ALL`].
    fn index(self) -> usize;
}

/// Declares an enum whose variants are followed by their labels (`Variant = "label",`), and implements
/// [`Label`] for it.
macro_rules! labels {
    (
        $(#[$of_enum:meta])*
        $vis:vis enum $name:ident { $($(#[$of_variant:meta])* $variant:ident = $label:literal,)+ }
    ) => {
        $(#[$of_enum])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name { $($(#[$of_variant])* $variant,)+ }

        impl $crate::label::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad($crate::label::Label::label(*self))
            }
        }

        /// Never called. Two equal labels would be two equal patterns, and the compiler refuses the second.
        #[deny(unreachable_patterns)]
        const _: fn(&str) -> bool = |text| matches!(text, $($label)|+);
    };
}
pub(crate) use labels;

/// `1 relay`, `2 relays`: a noun whose plural has an s.
pub fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// An enum with three variants.
        enum Number {
            /// 1
            One = "one",
            /// 2
            Two = "two",
            /// 23
            TwentyThree = "twenty-three",
        }
    }

    #[test]
    fn one_is_singular_and_none_is_plural() {
        let all = [0, 1, 2].map(|count| counted(count, "relay"));
        assert_eq!(all, ["0 relays", "1 relay", "2 relays"]);
    }

    #[test]
    fn each_variant_has_its_index_and_its_label() {
        assert_eq!(Number::ALL, [Number::One, Number::Two, Number::TwentyThree]);
        assert_eq!(Number::TwentyThree.label(), "twenty-three");
        for (index, number) in Number::ALL.iter().enumerate() {
            assert_eq!(number.index(), index);
        }
    }
}
