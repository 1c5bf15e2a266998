//! Objects to fill a [`MemoryStore`] with.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{MemoryStore, Object, REGISTRATION_TIME, file_nar};
use crate::{
    ContentAddress, ContentMethod, Derivation, DerivationOutput, ModuloCache, NarHash, PathInfo, SecretKey,
    StorePath, StorePathSet, make_store_path,
};

/// Every method panics on a name that no store path can have.
impl MemoryStore {
    /// Adds a regular file, addressed by the hash of its NAR.
    ///
    /// # Panics
    /// If the name is not allowed.
    pub fn add(&self, name: &str, content: impl AsRef<[u8]>, references: &[StorePath]) -> StorePath {
        let nar = file_nar(content.as_ref());
        let hash = NarHash::of(&nar);
        self.add_addressed(ContentMethod::Recursive, hash, name, nar, references)
    }

    /// Adds a regular file, addressed by the hash of its bytes, as `builtins.toFile` does.
    ///
    /// # Panics
    /// If the name is not allowed.
    pub fn add_text(&self, name: &str, content: impl AsRef<[u8]>, references: &[StorePath]) -> StorePath {
        let content = content.as_ref();
        let hash = NarHash::of(content);
        self.add_addressed(ContentMethod::Text, hash, name, file_nar(content), references)
    }

    /// Adds a regular file as the output of some derivation: its path says nothing about its content.
    ///
    /// # Panics
    /// If the name is not allowed.
    pub fn add_output(&self, name: &str, content: impl AsRef<[u8]>, references: &[StorePath]) -> StorePath {
        let path = self.made_up_path(name, references);
        let nar = file_nar(content.as_ref());
        self.insert(info_of(path.clone(), &nar, references.iter().cloned()), nar);
        path
    }

    /// Adds a regular file that contains its own path, and so refers to itself.
    ///
    /// # Panics
    /// If the name is not allowed.
    pub fn add_self_referring(&self, name: &str, references: &[StorePath]) -> StorePath {
        let path = self.made_up_path(name, references);
        let nar = file_nar(self.store_dir.full(&path).as_bytes());
        let all = references.iter().cloned().chain([path.clone()]);
        self.insert(info_of(path.clone(), &nar, all), nar);
        path
    }

    /// Adds `length` paths, each referring to the one before.
    pub fn add_chain(&self, length: usize) -> Vec<StorePath> {
        let mut chain: Vec<StorePath> = Vec::with_capacity(length);
        for index in 0..length {
            let before = chain.last().map(std::slice::from_ref).unwrap_or_default();
            let link = self.add(&format!("link-{index}"), format!("link {index}\n"), before);
            chain.push(link);
        }
        chain
    }

    /// Adds a derivation with input-addressed outputs that follow from it. Of `inputs`, derivations are wanted for all
    /// their outputs, and anything else is a source.
    ///
    /// # Panics
    /// If the name is not allowed, there are no outputs, or an input derivation is not valid or none at all.
    pub fn add_derivation(&self, name: &str, outputs: &[&str], inputs: &[StorePath]) -> StorePath {
        let mut derivation = Derivation {
            platform: b"x86_64-linux".to_vec(),
            builder: b"/bin/sh".to_vec(),
            environment: BTreeMap::from([(b"name".to_vec(), name.into())]),
            ..Derivation::default()
        };
        for input in inputs.iter().filter(|input| input.is_derivation()) {
            let wanted = self.derivation(input).outputs.into_keys().collect();
            derivation.input_derivations.insert(input.clone(), wanted);
        }
        derivation.input_sources = inputs.iter().filter(|input| !input.is_derivation()).cloned().collect();
        // Which paths stand there does not matter to the paths that follow.
        let own = self.made_up_path(&format!("{name}.drv"), inputs);
        for output in outputs {
            derivation.outputs.insert((*output).to_owned(), DerivationOutput::InputAddressed(own.clone()));
            derivation.environment.insert(output.as_bytes().to_vec(), Vec::new());
        }
        let mut cache = ModuloCache::new(self.store_dir.clone());
        let paths = derivation
            .output_paths(&own, &mut cache, |input| Ok(self.derivation(input)))
            .unwrap_or_else(|error| panic!("no derivation can be like '{name}': {error}"));
        for (output, path) in paths {
            derivation.environment.insert(output.clone().into(), self.store_dir.full(&path).into());
            derivation.outputs.insert(output, DerivationOutput::InputAddressed(path));
        }
        let references: Vec<_> = derivation.references().iter().cloned().collect();
        let known: Vec<_> = derivation.outputs.values().filter_map(DerivationOutput::path).cloned().collect();
        let path = self.add_text(&format!("{name}.drv"), derivation.to_bytes(&self.store_dir), &references);
        self.declare_outputs(&path, &known);
        path
    }

    /// Makes the outputs of a derivation valid, each referring to `references`. Gives them in the order of their names.
    ///
    /// # Panics
    /// If the derivation is not valid or none at all.
    pub fn build(&self, derivation: &StorePath, references: &[StorePath]) -> Vec<StorePath> {
        let outputs = self.derivation(derivation).outputs;
        let mut built = Vec::with_capacity(outputs.len());
        for (name, output) in outputs {
            let Some(path) = output.path().cloned() else { continue };
            let nar = file_nar(format!("output {name} of {derivation}\n").as_bytes());
            let mut info = info_of(path.clone(), &nar, references.iter().cloned());
            info.deriver = Some(derivation.clone());
            self.insert(info, nar);
            built.push(path);
        }
        built
    }

    fn derivation(&self, path: &StorePath) -> Derivation {
        let nar = self.nar(path).unwrap_or_else(|| panic!("'{path}' is not valid"));
        self.parse_derivation(&nar).unwrap_or_else(|error| panic!("'{path}': {error}"))
    }

    /// Adds anything, true or false.
    pub fn insert(&self, info: PathInfo, nar: impl Into<Bytes>) {
        self.state().insert(Object { info, nar: nar.into() });
    }

    /// Changes what is recorded about a path.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn change(&self, path: &StorePath, change: impl FnOnce(&mut PathInfo)) {
        match self.state().valid.get_mut(path) {
            Some(object) => change(&mut object.info),
            None => panic!("'{path}' is not valid"),
        }
    }

    /// Signs a path.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn sign(&self, path: &StorePath, key: &SecretKey) {
        self.change(path, |info| info.sign(&self.store_dir, key));
    }

    /// Records `outputs` as those of `derivation`; they need not be valid.
    pub fn declare_outputs(&self, derivation: &StorePath, outputs: &[StorePath]) {
        let outputs: BTreeSet<_> = outputs.iter().cloned().collect();
        self.state().outputs.entry(derivation.clone()).or_default().extend(outputs);
    }

    fn add_addressed(
        &self,
        method: ContentMethod,
        hash: NarHash,
        name: &str,
        nar: Vec<u8>,
        references: &[StorePath],
    ) -> StorePath {
        let address = ContentAddress::new(method, hash.into()).expect("sha256 suits every method");
        let references: StorePathSet = references.iter().cloned().collect();
        let path = address
            .store_path(&self.store_dir, name, &references, None)
            .unwrap_or_else(|error| panic!("no fixture can be called '{name}': {error}"));
        let mut info = info_of(path.clone(), &nar, references.iter().cloned());
        info.content_address = Some(address);
        self.insert(info, nar);
        path
    }

    /// A path as a derivation might give it: depends on the name and the references only.
    fn made_up_path(&self, name: &str, references: &[StorePath]) -> StorePath {
        let inner = references.iter().fold(Sha256::new(), |hash, path| hash.chain_update(path.base_name()));
        make_store_path("output:out", &inner.finalize().into(), &self.store_dir, name)
            .unwrap_or_else(|error| panic!("no fixture can be called '{name}': {error}"))
    }
}

fn info_of(path: StorePath, nar: &[u8], references: impl IntoIterator<Item = StorePath>) -> PathInfo {
    let mut info = PathInfo::new(path, NarHash::of(nar), nar.len() as u64);
    info.references = references.into_iter().collect();
    info.registration_time = REGISTRATION_TIME;
    info
}
