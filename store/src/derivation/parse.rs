//! From bytes to a [`Derivation`].

use std::collections::{BTreeMap, BTreeSet};

use super::{Derivation, DerivationError, DerivationOutput, WantedOutputs};
use crate::{ContentAddress, ContentMethod, Hash, HashAlgorithm, StoreDir, StorePath};

/// The one versioned form.
pub(super) const DYNAMIC_VERSION: &str = "xp-dyn-drv";
/// Deepest nesting of dynamic derivations. Nix has no limit but its stack; one level is what people write.
const DEPTH_LIMIT: usize = 64;
/// How much of an unknown version is worth showing.
const SHOWN_VERSION: usize = 40;

pub(super) fn parse(text: &[u8], store_dir: &StoreDir) -> Result<Derivation, DerivationError> {
    let mut parser = Parser { text, offset: 0, store_dir };
    let dynamic = parser.head()?;
    let mut derivation = Derivation { outputs: parser.outputs()?, ..Derivation::default() };
    parser.expect(b',', "','")?;
    derivation.input_derivations = parser.input_derivations(dynamic)?;
    parser.expect(b',', "','")?;
    let mut sources = Vec::new();
    parser.list(|parser| {
        sources.push(parser.path()?);
        Ok(())
    })?;
    derivation.input_sources = sources.into_iter().collect();
    parser.expect(b',', "','")?;
    derivation.platform = parser.bytes()?;
    parser.expect(b',', "','")?;
    derivation.builder = parser.bytes()?;
    parser.expect(b',', "','")?;
    parser.list(|parser| {
        derivation.arguments.push(parser.bytes()?);
        Ok(())
    })?;
    parser.expect(b',', "','")?;
    parser.list(|parser| {
        parser.expect(b'(', "'('")?;
        let name = parser.bytes()?;
        parser.expect(b',', "','")?;
        // As in Nix: of two values for one name the later one counts.
        derivation.environment.insert(name, parser.bytes()?);
        parser.expect(b')', "')'")
    })?;
    parser.expect(b')', "')'")?;
    Ok(derivation)
}

struct Parser<'a> {
    text: &'a [u8],
    offset: usize,
    store_dir: &'a StoreDir,
}

impl Parser<'_> {
    /// Whether the form with dynamic derivations follows.
    fn head(&mut self) -> Result<bool, DerivationError> {
        if self.eat_all(b"Derive(") {
            return Ok(false);
        }
        if !self.eat_all(b"DrvWithVersion(") {
            return Err(self.expected("'Derive(' or 'DrvWithVersion('"));
        }
        let offset = self.offset;
        let version = self.bytes()?;
        if version != DYNAMIC_VERSION.as_bytes() {
            let shown = version.get(..SHOWN_VERSION).unwrap_or(&version);
            let version = String::from_utf8_lossy(shown).into_owned();
            return Err(DerivationError::Version { offset, version });
        }
        self.expect(b',', "','")?;
        Ok(true)
    }

    fn outputs(&mut self) -> Result<BTreeMap<String, DerivationOutput>, DerivationError> {
        let mut outputs = BTreeMap::new();
        self.list(|parser| {
            let offset = parser.offset;
            parser.expect(b'(', "'('")?;
            let name = parser.name()?;
            parser.expect(b',', "','")?;
            let path = parser.offset;
            let path = (path, parser.name()?);
            parser.expect(b',', "','")?;
            let algorithm = parser.name()?;
            parser.expect(b',', "','")?;
            let hash = parser.name()?;
            parser.expect(b')', "')'")?;
            let output = parser.output(offset, path, &algorithm, &hash)?;
            // As in Nix: of two outputs of one name the earlier one counts.
            outputs.entry(name).or_insert(output);
            Ok(())
        })?;
        Ok(outputs)
    }

    fn output(
        &self,
        offset: usize,
        (path_offset, path): (usize, String),
        algorithm: &str,
        hash: &str,
    ) -> Result<DerivationOutput, DerivationError> {
        let refuse = |problem| Err(DerivationError::Output { offset, problem });
        let parse_path = || {
            self.store_dir
                .parse(&path)
                .map_err(|source| DerivationError::Path { offset: path_offset, source })
        };
        if algorithm.is_empty() {
            return match (path.is_empty(), hash.is_empty()) {
                (_, false) => refuse("a hash without an algorithm"),
                (true, true) => Ok(DerivationOutput::Deferred),
                (false, true) => Ok(DerivationOutput::InputAddressed(parse_path()?)),
            };
        }
        let bad_hash = |source| DerivationError::Hash { offset, source };
        let (method, algorithm) = split_method(algorithm);
        let algorithm: HashAlgorithm = algorithm.parse().map_err(bad_hash)?;
        match (hash, path.is_empty()) {
            ("impure", true) => Ok(DerivationOutput::Impure { method, algorithm }),
            ("", true) => Ok(DerivationOutput::Floating { method, algorithm }),
            ("impure", false) => refuse("a path although it is impure"),
            ("", false) => refuse("a path although its content is not known"),
            (_, true) => refuse("no path although its content is known"),
            (digits, false) => {
                let hash = Hash::parse_digits(algorithm, digits).map_err(bad_hash)?;
                match ContentAddress::new(method, hash) {
                    Some(address) => Ok(DerivationOutput::Fixed { path: parse_path()?, address }),
                    None => refuse("a text hash that is not sha256"),
                }
            }
        }
    }

    fn input_derivations(
        &mut self,
        dynamic: bool,
    ) -> Result<BTreeMap<StorePath, WantedOutputs>, DerivationError> {
        let mut inputs = BTreeMap::new();
        self.list(|parser| {
            parser.expect(b'(', "'('")?;
            let path = parser.path()?;
            parser.expect(b',', "','")?;
            let wanted = parser.wanted(dynamic, 0)?;
            inputs.insert(path, wanted);
            parser.expect(b')', "')'")
        })?;
        Ok(inputs)
    }

    fn wanted(&mut self, dynamic: bool, depth: usize) -> Result<WantedOutputs, DerivationError> {
        if depth > DEPTH_LIMIT {
            return Err(DerivationError::TooDeep { offset: self.offset, limit: DEPTH_LIMIT });
        }
        if !(dynamic && self.eat(b'(')) {
            return Ok(WantedOutputs { names: self.names()?, dynamic: BTreeMap::new() });
        }
        let mut wanted = WantedOutputs { names: self.names()?, dynamic: BTreeMap::new() };
        self.expect(b',', "','")?;
        self.list(|parser| {
            parser.expect(b'(', "'('")?;
            let name = parser.name()?;
            parser.expect(b',', "','")?;
            let inner = parser.wanted(dynamic, depth.saturating_add(1))?;
            wanted.dynamic.insert(name, inner);
            parser.expect(b')', "')'")
        })?;
        self.expect(b')', "')'")?;
        Ok(wanted)
    }

    fn names(&mut self) -> Result<BTreeSet<String>, DerivationError> {
        let mut names = BTreeSet::new();
        self.list(|parser| {
            names.insert(parser.name()?);
            Ok(())
        })?;
        Ok(names)
    }

    /// A list, with commas where Nix wants them: anywhere before an item, and never before the end.
    fn list(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), DerivationError>,
    ) -> Result<(), DerivationError> {
        self.expect(b'[', "'['")?;
        loop {
            if !self.eat(b',') && self.eat(b']') {
                return Ok(());
            }
            item(self)?;
        }
    }

    fn path(&mut self) -> Result<StorePath, DerivationError> {
        let offset = self.offset;
        let text = self.name()?;
        self.store_dir.parse(&text).map_err(|source| DerivationError::Path { offset, source })
    }

    fn name(&mut self) -> Result<String, DerivationError> {
        let offset = self.offset;
        String::from_utf8(self.bytes()?).map_err(|_| DerivationError::NotUtf8 { offset })
    }

    /// A quoted string.
    fn bytes(&mut self) -> Result<Vec<u8>, DerivationError> {
        self.expect(b'"', "'\"'")?;
        let mut bytes = Vec::new();
        loop {
            let rest = self.text.get(self.offset..).unwrap_or_default();
            let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count();
            bytes.extend_from_slice(rest.get(..plain).unwrap_or_default());
            self.offset = self.offset.saturating_add(plain);
            if self.eat(b'"') {
                return Ok(bytes);
            }
            if !self.eat(b'\\') {
                return Err(self.expected("the end of a string"));
            }
            let Some(&escaped) = self.text.get(self.offset) else {
                return Err(self.expected("the end of a string"));
            };
            self.offset = self.offset.saturating_add(1);
            bytes.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => other,
            });
        }
    }

    fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), DerivationError> {
        if self.eat(byte) { Ok(()) } else { Err(self.expected(name)) }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.offset) == Some(&byte);
        self.offset = self.offset.saturating_add(usize::from(found));
        found
    }

    fn eat_all(&mut self, bytes: &[u8]) -> bool {
        let found = self.text.get(self.offset..).is_some_and(|rest| rest.starts_with(bytes));
        self.offset = self.offset.saturating_add(if found { bytes.len() } else { 0 });
        found
    }

    const fn expected(&self, expected: &'static str) -> DerivationError {
        DerivationError::Expected { offset: self.offset, expected }
    }
}

fn split_method(text: &str) -> (ContentMethod, &str) {
    for method in [ContentMethod::Recursive, ContentMethod::Text, ContentMethod::Git] {
        if let Some(algorithm) = text.strip_prefix(super::method_prefix(method)) {
            return (method, algorithm);
        }
    }
    (ContentMethod::Flat, text)
}
