//! Writes what each target starts from: `corpus/TARGET/seed-N`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, seeds) in rabia_bank_fuzz::all_seeds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
