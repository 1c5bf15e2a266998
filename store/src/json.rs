//! The JSON of Nix, as its manual describes it under "JSON formats", by way of `serde`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    ContentAddress, ContentMethod, Hash, NarHash, PathInfo, Signature, StoreDir, StorePath, StorePathSet,
    base64,
};

/// A type that is a string in JSON.
macro_rules! string {
    ($type:ty, |$value:ident| $write:expr, |$text:ident| $read:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $value = self;
                serializer.collect_str(&$write)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                let $text: &str = &text;
                $read.map_err(D::Error::custom)
            }
        }
    };
}

string!(StoreDir, |dir| dir, |text| StoreDir::new(text));
// The base name: JSON says the store directory apart.
string!(StorePath, |path| path, |text| StorePath::from_base_name(text));
// SRI; any other form is read too.
string!(Hash, |hash| hash.to_sri(), |text| text.parse());
string!(NarHash, |hash| Hash::from(*hash).to_sri(), |text| NarHash::parse(text));

impl Serialize for StorePathSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for StorePathSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from_iter)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", remote = "ContentMethod")]
enum Method {
    Text,
    Flat,
    #[serde(rename = "nar")]
    Recursive,
    Git,
}

#[derive(Serialize, Deserialize)]
struct Address {
    #[serde(with = "Method")]
    method: ContentMethod,
    hash: Hash,
}

/// `{"method": "nar", "hash": "sha256-..."}`.
impl Serialize for ContentAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Address { method: self.method(), hash: *self.hash() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ContentAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Address { method, hash } = Address::deserialize(deserializer)?;
        Self::new(method, hash).ok_or_else(|| D::Error::custom("text is always hashed with sha256"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SignatureForm<'a> {
    #[serde(rename_all = "camelCase")]
    Structured {
        key_name: Cow<'a, str>,
        sig: Cow<'a, str>,
    },
    Text(Cow<'a, str>),
}

/// `{"keyName": "cache.example.org-1", "sig": "..."}`. The form up to version 2, `name:base64`, is read too.
impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sig = base64::encode(self.as_bytes()).into();
        SignatureForm::Structured { key_name: self.key_name().into(), sig }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SignatureForm::deserialize(deserializer)? {
            SignatureForm::Structured { key_name, sig } => format!("{key_name}:{sig}").parse(),
            SignatureForm::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

/// The version that is written. Version 2 has signatures as text.
const VERSION: u32 = 3;

fn check_version<E: serde::de::Error>(version: u32) -> Result<(), E> {
    match version {
        2 | VERSION => Ok(()),
        other => Err(E::custom(format_args!("path infos of version {other} cannot be read, 2 and 3 can"))),
    }
}

/// What `nix path-info --json --json-format 3` prints: a store directory, and the metadata of paths in it.
///
/// Version 2, which differs in how signatures are written, is read as well.
///
/// ```
/// use ncc_store::{NarHash, PathInfo, PathInfos, StorePath};
///
/// let path: StorePath = "nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi".parse()?;
/// let info = PathInfo::new(path, NarHash::new([0; 32]), 120);
/// let infos = PathInfos::from_iter([info]);
/// let json = serde_json::to_string(&infos)?;
/// assert!(json.starts_with(r#"{"version":3,"storeDir":"/nix/store","info":{"nlhn6cma43vk5l44cgr8sw3ykiir1wmm-hi":{"#));
/// assert_eq!(serde_json::from_str::<PathInfos>(&json)?, infos);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfos {
    /// Where the paths belong.
    pub store_dir: StoreDir,
    /// What is recorded about each path; `None` where it is not valid.
    pub infos: BTreeMap<StorePath, Option<PathInfo>>,
}

/// In `/nix/store`.
impl FromIterator<PathInfo> for PathInfos {
    fn from_iter<I: IntoIterator<Item = PathInfo>>(infos: I) -> Self {
        let infos = infos.into_iter().map(|info| (info.path.clone(), Some(info))).collect();
        Self { store_dir: StoreDir::default(), infos }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    store_dir: StoreDir,
    info: BTreeMap<StorePath, Option<Object>>,
}

/// The metadata of one path, without the path. What may be missing does not belong to the object itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    version: u32,
    store_dir: StoreDir,
    nar_hash: NarHash,
    nar_size: u64,
    references: StorePathSet,
    ca: Option<ContentAddress>,
    #[serde(default)]
    deriver: Option<StorePath>,
    #[serde(default)]
    registration_time: Option<i64>,
    #[serde(default)]
    ultimate: bool,
    #[serde(default)]
    signatures: Vec<Signature>,
}

impl Serialize for PathInfos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = |info: PathInfo| Object {
            version: VERSION,
            store_dir: self.store_dir.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references,
            ca: info.content_address,
            deriver: info.deriver,
            registration_time: Some(info.registration_time).filter(|time| *time != 0),
            ultimate: info.ultimate,
            signatures: info.signatures,
        };
        let info = self.infos.iter().map(|(path, info)| (path.clone(), info.clone().map(object))).collect();
        Document { version: VERSION, store_dir: self.store_dir.clone(), info }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PathInfos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Document::deserialize(deserializer)?;
        check_version(document.version)?;
        let read = |(path, object): (StorePath, Option<Object>)| {
            let Some(object) = object else { return Ok((path, None)) };
            check_version(object.version)?;
            let mut info = PathInfo::new(path.clone(), object.nar_hash, object.nar_size);
            info.references = object.references;
            info.content_address = object.ca;
            info.deriver = object.deriver;
            info.registration_time = object.registration_time.unwrap_or(0);
            info.ultimate = object.ultimate;
            info.signatures = object.signatures;
            info.signatures.sort_unstable();
            info.signatures.dedup();
            Ok((path, Some(info)))
        };
        let infos = document.info.into_iter().map(read).collect::<Result<_, D::Error>>()?;
        Ok(Self { store_dir: document.store_dir, infos })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn round_trip<T: Serialize + for<'de> Deserialize<'de>>(value: &Value) {
        let read: T =
            serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(serde_json::to_value(read).unwrap(), *value);
    }

    /// The values stand in the documentation and in the unit tests of Nix 2.36.
    #[test]
    fn what_nix_writes_is_read_and_written_the_same() {
        round_trip::<StorePath>(&json!("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv"));
        round_trip::<Hash>(&json!("sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="));
        round_trip::<Hash>(&json!("blake3-nnDuFEmWX7YtBJBAoe0G7Dd0MNpuwTFz58T//NKL6YA="));
        round_trip::<NarHash>(&json!("sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc="));
        for (method, hash) in [
            ("nar", "sha256-9vLqj0XYoFfJVmoz+ZR02i5camYE1zYSFlDicwxvsKM="),
            ("text", "sha256-8OTC92xYkW7CWPJGhRvqCR0U1CR6L8PhhpRGGxgW4Ts="),
        ] {
            round_trip::<ContentAddress>(&json!({"method": method, "hash": hash}));
        }
        round_trip::<Signature>(&json!({"keyName": "asdf", "sig": format!("{}==", "A".repeat(86))}));
    }

    fn document(version: u32, signatures: &Value) -> Value {
        json!({
            "version": version,
            "storeDir": "/nix/store",
            "info": {
                "n5wkd9frr45pa74if5gpz9j7mifg27fh-foo": {
                    "ca": {"hash": "sha256-EMIJ+giQ/gLIWoxmPKjno3zHZrxbGymgzGGyZvZBIdM=", "method": "nar"},
                    "deriver": "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv",
                    "narHash": "sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc=",
                    "narSize": 34878,
                    "references": [
                        "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar",
                        "n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"
                    ],
                    "registrationTime": 23423,
                    "signatures": signatures,
                    "storeDir": "/nix/store",
                    "ultimate": true,
                    "version": version
                },
                "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar": null
            }
        })
    }

    #[test]
    fn path_infos_are_those_of_nix_path_info() {
        let sig = format!("{}==", "A".repeat(86));
        let third = document(3, &json!([{"keyName": "asdf", "sig": sig}, {"keyName": "qwer", "sig": sig}]));
        round_trip::<PathInfos>(&third);
        let second = document(2, &json!([format!("asdf:{sig}"), format!("qwer:{sig}")]));
        let second: PathInfos = serde_json::from_value(second).unwrap();
        assert_eq!(serde_json::to_value(second).unwrap(), third);
        let error = serde_json::from_value::<PathInfos>(document(4, &json!([]))).unwrap_err();
        assert_eq!(error.to_string(), "path infos of version 4 cannot be read, 2 and 3 can");
    }

    #[test]
    fn fields_that_say_nothing_about_the_object_itself_may_be_missing_and_others_may_come() {
        let mut value = document(3, &json!([]));
        let object = value["info"]["n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"].as_object_mut().unwrap();
        for field in ["deriver", "registrationTime", "signatures", "ultimate"] {
            object.remove(field);
        }
        object.insert("closureSize".to_owned(), json!(1));
        let infos: PathInfos = serde_json::from_value(value).unwrap();
        let info = infos.infos.into_values().flatten().next().unwrap();
        assert_eq!((info.deriver, info.registration_time, info.ultimate), (None, 0, false));
    }

    #[test]
    fn other_values_are_refused() {
        assert!(
            serde_json::from_value::<StorePath>(json!("/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a"))
                .is_err()
        );
        assert!(serde_json::from_value::<StorePath>(json!(7)).is_err());
        let sha1 = json!({"method": "text", "hash": "sha1-qvTGHdzF6KLavt4PO0gs2a6pQ00="});
        assert!(serde_json::from_value::<ContentAddress>(sha1).is_err());
        assert!(
            serde_json::from_value::<Signature>(json!({"keyName": "a b", "sig": "A".repeat(86)})).is_err()
        );
    }
}
