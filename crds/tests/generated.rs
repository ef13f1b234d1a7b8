//! The YAML in the tree is what the code says.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use isolet_crds::yaml::generated_files;

#[test]
fn generated_yaml_is_up_to_date() {
    for file in generated_files().unwrap() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(file.path);
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == file.content,
            "{} differs from crds/src/function.rs: run `make crds` and commit the result",
            file.path
        );
    }
}

#[test]
fn the_schema_is_structural_and_closed() {
    let yaml = &generated_files().unwrap()[0].content;
    let crd: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["subresources"]["status"], serde_json::json!({}));
    let schema = &version["schema"]["openAPIV3Schema"]["properties"];
    let conditions = &schema["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(
        conditions["x-kubernetes-list-map-keys"],
        serde_json::json!(["type"])
    );
    // The API server answers an unknown format with a warning to every user.
    assert!(!yaml.contains("format: uint"), "{yaml}");
}
