//! Computes the store path of a file from its content, signs its metadata, and checks the signature.
//!
//! `cargo run -p ncc-store --example store_path -- FILE`

#![allow(clippy::print_stdout, reason = "it is an example's job")]

use std::{env, error::Error, fs, path::Path};

use ncc_store::{
    ContentAddress, ContentMethod, HashAlgorithm, Hasher, NarHash, PathInfo, PublicKey, SecretKey, StoreDir,
    StorePathSet,
};

fn main() -> Result<(), Box<dyn Error>> {
    let argument = env::args_os().nth(1);
    let (name, content) = match &argument {
        Some(file) => {
            let file = Path::new(file);
            let name =
                file.file_name().and_then(|name| name.to_str()).ok_or("the file has no usable name")?;
            (name, fs::read(file)?)
        }
        None => ("foo.txt", b"hello\n".to_vec()),
    };

    // The path that `nix-store --add-fixed sha256 FILE` gives.
    let store_dir = StoreDir::default();
    let mut hasher = Hasher::new(HashAlgorithm::Sha256).ok_or("sha256 can always be computed")?;
    hasher.update(&content);
    let address =
        ContentAddress::new(ContentMethod::Flat, hasher.finish()).ok_or("flat suits every algorithm")?;
    let path = address.store_path(&store_dir, name, &StorePathSet::default(), None)?;
    println!("{}", store_dir.full(&path));
    println!("content address: {address}");

    // What is signed is the NAR, which `ncc-nar` makes; here some bytes stand in for it.
    let mut info = PathInfo::new(path, NarHash::of(&content), content.len() as u64);
    info.content_address = Some(address);
    let secret = SecretKey::from_seed("example.org-1", &[7; 32])?;
    info.sign(&store_dir, &secret);
    let trusted: PublicKey = secret.public_key().to_string().parse()?;
    println!("signatures: {:?}", info.signatures);
    let keys = [trusted];
    println!("signed by {}: {}", keys[0].name(), info.is_signed_by(&store_dir, &keys));

    info.nar_size = info.nar_size.saturating_add(1);
    println!("after a change: {}", info.is_signed_by(&store_dir, &keys));
    Ok(())
}
