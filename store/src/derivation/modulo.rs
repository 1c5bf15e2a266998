//! The hash of a derivation modulo its fixed-output inputs, from which the paths of its outputs follow.
//!
//! Two texts are hashed, and the difference is easily overlooked. What *dependants* see of a derivation is the hash of
//! a text with its output paths in place; its *own* output paths follow from the same text without them. In both, each
//! input derivation is named by what its dependants see of it, and a fixed output is seen as its content only.

use std::collections::{BTreeMap, HashMap, HashSet};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{
    Derivation, DerivationOutput, OutputsError, method_prefix, output_path_name,
    write::{self, HashedInputs, OwnOutputs},
};
use crate::{Cause, ContentAddressError, StoreDir, StorePath, StorePathSet, make_store_path};

/// What dependants see of a derivation: for each output a hash.
type Seen = BTreeMap<String, [u8; 32]>;

/// The hashes of derivations met so far, so that each is read and hashed once.
///
/// Belongs to one store directory, and to one set of derivations: a path always means the same file.
#[derive(Clone, Debug)]
pub struct ModuloCache {
    store_dir: StoreDir,
    seen: HashMap<StorePath, Seen>,
}

impl ModuloCache {
    /// An empty cache.
    pub fn new(store_dir: StoreDir) -> Self {
        Self { store_dir, seen: HashMap::new() }
    }

    /// How many derivations are known.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Makes `derivation` known, so that it need not be read for its dependants.
    ///
    /// `read` is asked for input derivations, at any depth, that are not known yet.
    ///
    /// # Errors
    /// [`OutputsError`]
    pub fn insert(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        mut read: impl FnMut(&StorePath) -> Result<Derivation, Cause>,
    ) -> Result<(), OutputsError> {
        if self.seen.contains_key(path) {
            return Ok(());
        }
        self.learn_inputs(path, derivation, &mut read)?;
        let seen = self.see(path, derivation)?;
        self.seen.insert(path.clone(), seen);
        Ok(())
    }

    /// Makes every input of `derivation` known, the deepest first.
    fn learn_inputs(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        read: &mut dyn FnMut(&StorePath) -> Result<Derivation, Cause>,
    ) -> Result<(), OutputsError> {
        let mut open = HashSet::from([path.clone()]);
        let mut pending: Vec<Pending> = Vec::new();
        let mut wanted = self.unknown_inputs(derivation);
        loop {
            let next = match pending.last_mut() {
                Some(top) => top.inputs.pop(),
                None => wanted.pop(),
            };
            if let Some(input) = next {
                if open.contains(&input) {
                    return Err(OutputsError::Cycle { derivation: input });
                }
                if self.seen.contains_key(&input) {
                    continue;
                }
                let derivation =
                    read(&input).map_err(|source| OutputsError::Input { input: input.clone(), source })?;
                open.insert(input.clone());
                pending.push(Pending { inputs: self.unknown_inputs(&derivation), path: input, derivation });
            } else if let Some(done) = pending.pop() {
                let seen = self.see(&done.path, &done.derivation)?;
                open.remove(&done.path);
                self.seen.insert(done.path, seen);
            } else {
                return Ok(());
            }
        }
    }

    fn unknown_inputs(&self, derivation: &Derivation) -> Vec<StorePath> {
        if derivation.is_seen_by_content() {
            return Vec::new();
        }
        let inputs = derivation.input_derivations.keys();
        inputs.filter(|path| !self.seen.contains_key(*path)).cloned().collect()
    }

    /// What dependants see of `derivation`, whose inputs are known.
    fn see(&self, path: &StorePath, derivation: &Derivation) -> Result<Seen, OutputsError> {
        let mut seen = Seen::new();
        let mut whole = None;
        for (name, output) in &derivation.outputs {
            let hash = match output {
                DerivationOutput::Fixed { path, address } => {
                    let text = format!(
                        "fixed:out:{}{}:{}:{}",
                        method_prefix(address.method()),
                        address.hash().algorithm(),
                        address.hash().to_base16(),
                        self.store_dir.full(path)
                    );
                    Sha256::digest(text).into()
                }
                DerivationOutput::Impure { .. } => Sha256::digest("impure").into(),
                _ => match whole {
                    Some(hash) => hash,
                    None => *whole.insert(self.hash(path, derivation, OwnOutputs::Shown)?),
                },
            };
            seen.insert(name.clone(), hash);
        }
        Ok(seen)
    }

    fn hash(
        &self,
        path: &StorePath,
        derivation: &Derivation,
        own: OwnOutputs,
    ) -> Result<[u8; 32], OutputsError> {
        let mut inputs = HashedInputs::new();
        for (input, wanted) in &derivation.input_derivations {
            let seen = self.seen.get(input);
            for name in &wanted.names {
                let hash =
                    seen.and_then(|seen| seen.get(name)).ok_or_else(|| OutputsError::MissingOutput {
                        derivation: path.clone(),
                        input: input.clone(),
                        output: name.clone(),
                    })?;
                inputs.entry(HEXLOWER.encode(hash)).or_default().insert(name);
            }
        }
        Ok(Sha256::digest(write::modulo(derivation, &self.store_dir, own, &inputs)).into())
    }
}

/// A derivation that waits for its inputs.
struct Pending {
    path: StorePath,
    derivation: Derivation,
    inputs: Vec<StorePath>,
}

impl Derivation {
    /// The paths its outputs must have, as far as they follow from the derivation or from a content known beforehand.
    ///
    /// `path` is its own path, of which only the name counts. `read` is asked for input derivations, at any depth,
    /// that `cache` does not know yet; for a derivation whose outputs are all fixed, floating, deferred or impure it
    /// is asked for none.
    ///
    /// # Errors
    /// [`OutputsError`]
    pub fn output_paths(
        &self,
        path: &StorePath,
        cache: &mut ModuloCache,
        mut read: impl FnMut(&StorePath) -> Result<Derivation, Cause>,
    ) -> Result<BTreeMap<String, StorePath>, OutputsError> {
        let derivation_name = path
            .name()
            .strip_suffix(".drv")
            .ok_or_else(|| OutputsError::NotADerivation { derivation: path.clone() })?;
        self.check_kinds().map_err(|problem| OutputsError::Kinds { derivation: path.clone(), problem })?;
        let mut inner = None;
        let mut paths = BTreeMap::new();
        for (output, kind) in &self.outputs {
            let name = output_path_name(derivation_name, output);
            let computed = match kind {
                DerivationOutput::InputAddressed(_) => {
                    let hash = match inner {
                        Some(hash) => hash,
                        None => {
                            cache.learn_inputs(path, self, &mut read)?;
                            *inner.insert(cache.hash(path, self, OwnOutputs::Blank)?)
                        }
                    };
                    make_store_path(&format!("output:{output}"), &hash, &cache.store_dir, &name)
                        .map_err(ContentAddressError::from)
                }
                DerivationOutput::Fixed { address, .. } => {
                    address.store_path(&cache.store_dir, &name, &StorePathSet::default(), None)
                }
                DerivationOutput::Floating { .. }
                | DerivationOutput::Deferred
                | DerivationOutput::Impure { .. } => continue,
            };
            let computed = computed.map_err(|source| OutputsError::Name {
                derivation: path.clone(),
                output: output.clone(),
                source,
            })?;
            paths.insert(output.clone(), computed);
        }
        Ok(paths)
    }

    /// Checks what Nix checks before it registers a `.drv` file: that the known output paths are those that follow,
    /// and that the environment carries them.
    ///
    /// Arguments as for [`Derivation::output_paths`].
    ///
    /// # Errors
    /// [`OutputsError`]
    pub fn check_outputs(
        &self,
        path: &StorePath,
        cache: &mut ModuloCache,
        read: impl FnMut(&StorePath) -> Result<Self, Cause>,
    ) -> Result<(), OutputsError> {
        for (output, expected) in self.output_paths(path, cache, read)? {
            match self.outputs.get(&output).and_then(DerivationOutput::path) {
                Some(found) if *found != expected => {
                    let (derivation, found) = (path.clone(), found.clone());
                    return Err(OutputsError::Path { derivation, found, expected });
                }
                _ => {}
            }
            let text = self.environment.get(output.as_bytes());
            if text.is_none_or(|text| *text != cache.store_dir.full(&expected).into_bytes()) {
                return Err(OutputsError::Environment { derivation: path.clone(), output, expected });
            }
        }
        Ok(())
    }

    /// Whether its inputs do not show in what dependants see of it.
    fn is_seen_by_content(&self) -> bool {
        let by_content =
            |kind: &_| matches!(kind, DerivationOutput::Fixed { .. } | DerivationOutput::Impure { .. });
        self.outputs.values().all(by_content)
    }

    /// What is wrong with the kinds of its outputs.
    fn check_kinds(&self) -> Result<(), &'static str> {
        let mut outputs = self.outputs.values();
        let first = outputs.next().ok_or("no outputs")?;
        let alike = |kind: &_| std::mem::discriminant(kind) == std::mem::discriminant(first);
        if outputs.all(alike) { Ok(()) } else { Err("outputs of different kinds") }
    }
}
