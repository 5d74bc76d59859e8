//! JSON as callers and operators send it, read strictly: no member that nobody asked for, none that comes twice, no value
//! of another type. Borrows from the body wherever nothing was escaped, so that reading a call copies nothing.
//!
//! What is wrong is said with names and positions, never by repeating a value: a value may be a grant.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::error::Category;

use super::problem::Problem;
use crate::daemon::config::did_you_mean;
use crate::model::key::BadName;

/// The most members that an object may have: no call takes half as many.
const MEMBERS_MAX: usize = 32;
/// Room for the members of an ordinary call, so that it takes one allocation; an empty object takes none.
const MEMBERS_USUAL: usize = 6;
/// How deep any call looks: the body, a list of it, an object in that, a list in that, and its texts. What is nested deeper is
/// read over, so that a body takes no more memory than a few times its length.
const LEVELS: u8 = 5;
/// The most elements of a list that are looked at: as many as the longest list of any call may have.
const ELEMENTS_MAX: usize = 1024;

/// A JSON object, member by member.
pub(super) struct Members<'b> {
    place: Place,
    all: Vec<(Cow<'b, str>, Value<'b>)>,
}

/// Where an object stands, for whoever has to mend it.
#[derive(Clone, Copy)]
enum Place {
    /// It is the body.
    Body,
    /// It is an element of a list that is a member of the body.
    Element(&'static str, usize),
}

/// A value, as far as any call looks into it.
enum Value<'b> {
    Null,
    Text(Cow<'b, str>),
    Number(u64),
    List(Vec<Self>),
    /// With more than [`ELEMENTS_MAX`] elements.
    LongList,
    Object(Vec<(Cow<'b, str>, Self)>),
    /// What no call takes: a truth value, a negative number, a fraction.
    Other,
}

/// Reads a value down to so many levels.
#[derive(Clone, Copy)]
struct Deep(u8);

/// A name of a member, borrowed where it can be.
struct Name<'b>(Cow<'b, str>);

// === impl Members ===

impl<'b> Members<'b> {
    /// Reads the object that a body is.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a body that is no JSON object with members of different names.
    pub(super) fn parse(body: &'b [u8]) -> Result<Self, Problem> {
        // Once for all, which costs less than to look at each text.
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to() + 1;
            Problem::invalid(format!("the body is not JSON (byte {at} is not UTF-8)"))
        })?;
        let value = read(text).map_err(|error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            match error.classify() {
                Category::Data => no_object(&at),
                Category::Eof => Problem::invalid("the body is JSON that ends too early"),
                Category::Syntax | Category::Io => {
                    Problem::invalid(format!("the body is not JSON ({at})"))
                }
            }
        })?;
        match value {
            Value::Object(all) => Ok(Self {
                place: Place::Body,
                all,
            }),
            _ => Err(no_object("line 1, column 1")),
        }
    }

    /// Reads an object that came by itself, as the `at`th of a list.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names its place, when it is no JSON object with members of different names.
    pub(super) fn element(list: &'static str, at: usize, text: &'b str) -> Result<Self, Problem> {
        match read(text) {
            Ok(Value::Object(all)) => Ok(Self {
                place: Place::Element(list, at),
                all,
            }),
            _ => Err(bad_member(
                &format!("{list}[{at}]"),
                "one JSON object with members of different names",
            )),
        }
    }

    /// The member of this name; `null` is none.
    fn take(&mut self, name: &str) -> Option<Value<'b>> {
        let at = self.all.iter().position(|(member, _)| member == name)?;
        match self.all.swap_remove(at).1 {
            Value::Null => None,
            value => Some(value),
        }
    }

    /// A member that must be a string, and is parsed.
    pub(super) fn named<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, BadName>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        parse(&text)
            .map(Some)
            .map_err(|bad| self.bad(name, bad.fix))
    }

    /// A member that must be a string.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'b, str>>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(name, "a string")),
        }
    }

    /// A member that must be a list of strings.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<Cow<'b, str>>>, Problem> {
        let texts = match self.take(name) {
            None => return Ok(None),
            Some(Value::List(items)) => {
                let texts = items.into_iter().map(|item| match item {
                    Value::Text(text) => Some(text),
                    _ => None,
                });
                texts.collect::<Option<_>>()
            }
            Some(_) => None,
        };
        texts
            .map(Some)
            .ok_or_else(|| self.bad(name, "a list of strings"))
    }

    /// A member that must be a list of one object or more, at most `most`.
    pub(super) fn objects(
        &mut self,
        name: &'static str,
        most: usize,
    ) -> Result<Vec<Self>, Problem> {
        let items = match self.take(name) {
            None => return Err(self.missing(name)),
            Some(Value::List(items)) if (1..=most).contains(&items.len()) => items,
            Some(_) => return Err(self.bad(name, &format!("a list of 1 to {most} objects"))),
        };
        let object = |(at, item)| match item {
            Value::Object(all) => Ok(Self {
                place: Place::Element(name, at),
                all,
            }),
            _ => Err(bad_member(&format!("{name}[{at}]"), "an object")),
        };
        items.into_iter().enumerate().map(object).collect()
    }

    /// A member that must be a whole number inside `range`.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Number(number)) if range.contains(&number) => Ok(Some(number)),
            Some(_) => {
                let (least, most) = range.into_inner();
                Err(self.bad(name, &format!("a whole number from {least} to {most}")))
            }
        }
    }

    /// Refuses members that nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let left = |(_, value): &&(_, Value<'_>)| !matches!(value, Value::Null);
        match self.all.iter().find(left) {
            Some((name, _)) => {
                let name = shown(name);
                Err(Problem::invalid(match self.place {
                    Place::Body => format!("unknown member {name}"),
                    Place::Element(list, at) => format!("unknown member {name} in `{list}[{at}]`"),
                }))
            }
            None => Ok(()),
        }
    }

    /// A member that must be there and is not.
    pub(super) fn missing(&self, name: &str) -> Problem {
        let given = self.all.iter().map(|(member, _)| &**member);
        let misspelt = did_you_mean(name, given)
            .map(|given| format!("; did you mean it by {}?", shown(given)));
        let misspelt = misspelt.unwrap_or_default();
        Problem::invalid(format!("`{}{name}` is missing{misspelt}", self.place))
    }

    /// A member that is not what it must be.
    pub(super) fn bad(&self, name: &str, expected: &str) -> Problem {
        bad_member(&format!("{}{name}", self.place), expected)
    }
}

fn no_object(at: &str) -> Problem {
    Problem::invalid(format!(
        "the body must be one JSON object with members of different names ({at})"
    ))
}

/// A member or parameter that is not what it must be.
pub(super) fn bad_member(name: &str, expected: &str) -> Problem {
    Problem::invalid(format!("`{name}` must be: {expected}"))
}

/// A name from outside, quoted, escaped and never longer than a line.
pub(super) fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(64).collect::<String>())
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Element(list, at) => write!(f, "{list}[{at}]."),
        }
    }
}

/// One value and nothing after it.
fn read(text: &str) -> serde_json::Result<Value<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Deep(LEVELS).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

// === impl Deep ===

impl<'de> DeserializeSeed<'de> for Deep {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Deep {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let mut all = Vec::new();
        let Some(below) = self.below() else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Value::Other);
        };
        while all.len() < ELEMENTS_MAX {
            match items.next_element_seed(below)? {
                Some(item) => all.push(item),
                None => return Ok(Value::List(all)),
            }
        }
        let mut longer = false;
        while items.next_element::<IgnoredAny>()?.is_some() {
            longer = true;
        }
        Ok(if longer {
            Value::LongList
        } else {
            Value::List(all)
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut all: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
        let Some(below) = self.below() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Other);
        };
        while let Some(Name(name)) = map.next_key()? {
            if all.is_empty() {
                all.reserve(MEMBERS_USUAL);
            }
            // Two members of one name: readers disagree which counts (RFC 8259, section 4).
            let twice = all.iter().any(|(member, _)| *member == name);
            if twice || all.len() == MEMBERS_MAX {
                return Err(serde::de::Error::custom("members"));
            }
            all.push((name, map.next_value_seed(below)?));
        }
        Ok(Value::Object(all))
    }
}

impl Deep {
    /// One level further down, if anything there is looked at.
    fn below(self) -> Option<Self> {
        self.0.checked_sub(1).filter(|levels| *levels > 0).map(Self)
    }
}

// === impl Name ===

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        let problem = Members::parse(body).err().expect("refused");
        problem.line().expect("told")
    }

    #[test]
    fn what_is_not_one_json_object_is_refused_without_repeating_it() {
        let deep = "[".repeat(10_000);
        let deep_member = format!("{{\"a\":{}", "{\"a\":".repeat(10_000));
        let many: String = (0..=MEMBERS_MAX).map(|n| format!("\"m{n}\":1,")).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        for body in [
            &b""[..],
            b"hunter2",
            b"\"hunter2\"",
            b"[\"hunter2\"]",
            b"{\"a\":\"hunter2\"",
            b"{\"a\":\"hunter2\"} x",
            b"{\"a\":\"hunter2\",\"a\":\"hunter2\"}",
            b"{\"a\":\"hunter2\",\"\\u0061\":\"hunter2\"}",
            b"{\"l\":[{\"a\":\"hunter2\",\"a\":\"hunter2\"}]}",
            b"{\"a\":\"\xff\xfehunter2\"}",
            b"{\"a\":1e999}",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
            deep_member.as_bytes(),
            many.as_bytes(),
        ] {
            let words = refused(body);
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn a_member_nobody_asked_for_is_named_and_not_shown() {
        let mut members =
            Members::parse(b"{\"provider\":\"a\",\"colour\\n\":\"hunter2\"}").unwrap();
        assert_eq!(members.text("provider").unwrap().as_deref(), Some("a"));
        let words = members.finish().unwrap_err().line().unwrap();
        assert!(
            words.contains("\"colour\\n\"") && !words.contains("hunter2"),
            "{words}"
        );
    }

    #[test]
    fn members_have_types_and_null_is_absent() {
        let parse = |text: &'static str| Members::parse(text.as_bytes()).unwrap();
        assert!(parse("{\"a\":1}").text("a").is_err());
        assert!(parse("{\"a\":\"x\"}").texts("a").is_err());
        assert!(parse("{\"a\":[\"x\",1]}").texts("a").is_err());
        assert!(parse("{\"a\":-1}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":1.5}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":10}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":1e99}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":true}").number("a", 0..=9).is_err());
        assert_eq!(parse("{\"a\":9}").number("a", 0..=9).unwrap(), Some(9));
        let escaped = parse("{\"\\u0061\":\"\\u0078\"}").text("a").unwrap();
        assert_eq!(escaped.as_deref(), Some("x"));
        let mut null = parse("{\"a\":null,\"b\":null}");
        assert_eq!(null.text("a").unwrap(), None);
        assert!(null.finish().is_ok());
    }

    #[test]
    fn a_text_without_escapes_is_not_copied() {
        let body = b"{\"a\":\"x\"}";
        let text = Members::parse(body).unwrap().text("a").unwrap();
        assert!(matches!(text, Some(Cow::Borrowed("x"))));
    }

    #[test]
    fn an_object_of_a_list_is_named_with_its_place() {
        let body = b"{\"keys\":[{\"a\":\"x\"},{\"a\":1},{\"b\":2}]}";
        let mut keys = Members::parse(body).unwrap().objects("keys", 3).unwrap();
        let words = |problem: Problem| problem.line().unwrap();
        let wrong = keys[1].text("a").unwrap_err();
        assert!(words(wrong).contains("`keys[1].a` must be: a string"));
        assert!(words(keys[2].missing("a")).contains("`keys[2].a` is missing"));
        let unknown = keys.pop().unwrap().finish().unwrap_err();
        assert!(words(unknown).contains("unknown member \"b\" in `keys[2]`"));
        assert!(keys.swap_remove(0).finish().is_err(), "nobody took `a`");
    }

    #[test]
    fn a_list_of_objects_has_one_and_not_too_many() {
        let objects = |body: &str, most| {
            let objects = Members::parse(body.as_bytes()).unwrap().objects("l", most);
            objects.map(|objects| objects.len()).map_err(|_| ())
        };
        let of = |count| format!("{{\"l\":[{}]}}", vec!["{}"; count].join(","));
        for bad in [
            "{}",
            "{\"l\":null}",
            "{\"l\":[]}",
            "{\"l\":{}}",
            "{\"l\":[1]}",
        ] {
            assert_eq!(objects(bad, 9), Err(()), "{bad}");
        }
        assert_eq!(objects(&of(9), 9), Ok(9));
        assert_eq!(objects(&of(10), 9), Err(()));
        assert_eq!(objects(&of(ELEMENTS_MAX), ELEMENTS_MAX), Ok(ELEMENTS_MAX));
        assert_eq!(objects(&of(ELEMENTS_MAX + 1), ELEMENTS_MAX), Err(()));
        // However long a list is, no more of it is kept.
        assert_eq!(objects(&of(ELEMENTS_MAX * 9), usize::MAX), Err(()));
    }
}
