//! Decodes pprof files with a schema of our own, written from the published `profile.proto`.
//!
//! The profiler's generated types are not used on purpose: a wrong field number would be the same
//! wrong number on both sides. Source: github.com/google/pprof, `proto/profile.proto`.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;

/// `perftools.profiles.Profile`, the fields that the tests look at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    /// What the values of each sample mean.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Mapped files.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Places in code.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All texts; the first one is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// When the recording began, ns since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took, ns.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What the period counts.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// Distance between samples.
    #[prost(int64, tag = "12")]
    pub period: i64,
}

/// `ValueType`: indices into the texts.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ValueType {
    /// For example `samples`.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// For example `count`.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// `Sample`: a stack, leaf first, with its values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    /// Ids of locations, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// Further facts.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// `Label`: a text or a number under a name.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Label {
    /// Index of the name.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Index of the text.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// The number.
    #[prost(int64, tag = "3")]
    pub num: i64,
}

/// `Mapping`: a mapped file.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Mapping {
    /// Above 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Index of the path.
    #[prost(int64, tag = "5")]
    pub filename: i64,
}

/// `Location`: a place in code.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Location {
    /// Above 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Id of its mapping, or 0.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// Its address.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Functions there, innermost first.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// `Line`: a function at a place.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Line {
    /// Id of the function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Line in its source file.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// `Function`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Function {
    /// Above 0, unique.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Index of its name.
    #[prost(int64, tag = "2")]
    pub name: i64,
}

impl Profile {
    /// Decodes a gzip-compressed profile and checks what `go tool pprof` checks before it shows one
    /// (`profile.CheckValid`).
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn decode_gz(bytes: &[u8]) -> Result<Self> {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).context("not gzip")?;
        let profile = Self::decode(&*plain).context("not a perftools.profiles.Profile")?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.string_table.first().is_some_and(String::is_empty), "the first text is not empty");
        ensure!(!self.sample_type.is_empty(), "no sample type");
        for index in self.sample_type.iter().flat_map(|kind| [kind.r#type, kind.unit]) {
            self.text(index)?;
        }
        let mappings = unique("mapping", self.mapping.iter().map(|mapping| mapping.id))?;
        let functions = unique("function", self.function.iter().map(|function| function.id))?;
        let locations = unique("location", self.location.iter().map(|location| location.id))?;
        for function in &self.function {
            self.text(function.name)?;
        }
        for location in &self.location {
            let mapping = location.mapping_id;
            ensure!(mapping == 0 || mappings.contains(&mapping), "no mapping {mapping}");
            for line in &location.line {
                ensure!(functions.contains(&line.function_id), "no function {}", line.function_id);
            }
        }
        for sample in &self.sample {
            ensure!(sample.value.len() == self.sample_type.len(), "a sample with the wrong number of values");
            for id in &sample.location_id {
                ensure!(locations.contains(id), "no location {id}");
            }
            for label in &sample.label {
                ensure!(!self.text(label.key)?.is_empty(), "a label without a name");
                self.text(label.str)?;
            }
        }
        Ok(())
    }

    /// Sum of one sample type, by its name.
    ///
    /// # Errors
    /// When there is no such type.
    pub fn total(&self, kind: &str) -> Result<i64> {
        let index =
            self.sample_type.iter().position(|of| self.text(of.r#type).is_ok_and(|name| name == kind));
        let index = index.with_context(|| format!("no sample type {kind}"))?;
        Ok(self.sample.iter().filter_map(|sample| sample.value.get(index)).sum())
    }

    /// The values that a text label takes.
    ///
    /// # Errors
    /// When an index leads nowhere.
    pub fn label_values(&self, name: &str) -> Result<HashSet<&str>> {
        let mut values = HashSet::new();
        for label in self.sample.iter().flat_map(|sample| &sample.label) {
            if self.text(label.key)? == name {
                values.insert(self.text(label.str)?);
            }
        }
        Ok(values)
    }

    /// The names of a sample's functions, leaf first.
    ///
    /// # Errors
    /// When an id leads nowhere.
    pub fn stack(&self, sample: &Sample) -> Result<Vec<&str>> {
        let locations: HashMap<u64, &Location> = self.location.iter().map(|at| (at.id, at)).collect();
        let functions: HashMap<u64, i64> = self.function.iter().map(|of| (of.id, of.name)).collect();
        let mut names = Vec::new();
        for id in &sample.location_id {
            for line in &locations.get(id).context("no such location")?.line {
                names.push(self.text(*functions.get(&line.function_id).context("no such function")?)?);
            }
        }
        Ok(names)
    }

    fn text(&self, index: i64) -> Result<&str> {
        let text = usize::try_from(index).ok().and_then(|index| self.string_table.get(index));
        text.map(String::as_str).with_context(|| format!("no text {index}"))
    }
}

fn unique(what: &str, ids: impl Iterator<Item = u64>) -> Result<HashSet<u64>> {
    let mut seen = HashSet::new();
    for id in ids {
        ensure!(id != 0 && seen.insert(id), "{what} id {id} is zero or not unique");
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn small() -> Profile {
        let texts = ["", "samples", "count", "comm", "demo", "main"];
        Profile {
            sample_type: vec![ValueType { r#type: 1, unit: 2 }],
            sample: vec![Sample {
                location_id: vec![7],
                value: vec![3],
                label: vec![Label { key: 3, str: 4, num: 0 }],
            }],
            location: vec![Location {
                id: 7,
                line: vec![Line { function_id: 9, line: 0 }],
                ..Location::default()
            }],
            function: vec![Function { id: 9, name: 5 }],
            string_table: texts.map(str::to_owned).to_vec(),
            ..Profile::default()
        }
    }

    #[test]
    fn a_good_profile_decodes() -> Result<()> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&small().encode_to_vec())?;
        let profile = Profile::decode_gz(&gz.finish()?)?;
        assert_eq!(profile.total("samples")?, 3);
        assert_eq!(profile.label_values("comm")?, HashSet::from(["demo"]));
        assert_eq!(profile.stack(&profile.sample[0])?, ["main"]);
        Ok(())
    }

    #[test]
    fn a_bad_profile_is_refused() {
        let spoil: [fn(&mut Profile); 6] = [
            |profile| profile.string_table[0] = "x".to_owned(),
            |profile| profile.sample[0].location_id[0] = 8,
            |profile| profile.sample[0].value.push(1),
            |profile| profile.function[0].id = 0,
            |profile| profile.sample[0].label[0].str = 6,
            |profile| profile.location[0].mapping_id = 1,
        ];
        for (index, spoil) in spoil.iter().enumerate() {
            let mut profile = small();
            spoil(&mut profile);
            assert!(profile.check().is_err(), "spoilt in way {index}");
        }
        assert!(Profile::decode_gz(b"no gzip").is_err());
    }
}
