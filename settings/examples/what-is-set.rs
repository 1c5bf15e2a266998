//! Prints the settings and the default store of this machine: `cargo run --example what-is-set [STORE]`.

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::env;

use ncc_settings::{Disk, Environment, SETTINGS, Settings, StoreChoice, StorePlace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let environment = Environment::from_process()?;
    let given: Vec<_> = env::args().nth(1).map(|uri| ("store".to_owned(), uri)).into_iter().collect();
    let settings = Settings::load(&environment, &Disk, &given)?;
    for setting in SETTINGS {
        if let Some(value) = settings.text(setting.name) {
            println!("{} = {value} ({})", setting.name, settings.origin(setting.name));
        }
    }
    let review = settings.review();
    for remark in review.refused.iter().chain(&review.missed).chain(&review.unknown) {
        println!("{remark}");
    }
    for (path, error) in settings.unreadable() {
        println!("{} cannot be read: {error}", path.display());
    }
    println!("without effect on a copy: {}", review.without_effect.join(", "));

    let choice = StoreChoice::new(&settings, &environment, &Disk)?;
    println!("{choice}");
    for remark in choice.reference.review()? {
        println!("{remark}");
    }
    match choice.place {
        StorePlace::Local(layout) => println!("{layout:#?}"),
        StorePlace::Daemon { socket, layout } => println!("{}\n{layout:#?}", socket.display()),
        _ => {}
    }
    Ok(())
}
