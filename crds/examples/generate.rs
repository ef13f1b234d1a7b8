//! Writes the generated YAML: `make crds`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in isolet_crds::yaml::generated_files()? {
        let path = root.join(file.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, file.content)?;
        println!("{}", file.path);
    }
    Ok(())
}
