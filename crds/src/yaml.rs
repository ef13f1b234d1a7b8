//! The CustomResourceDefinition as YAML, as it stands in `crds/` and in the chart.
//!
//! `make crds` (`cargo run -p isolet-crds --example generate`) writes both files; a test compares them.

use kube::CustomResourceExt;

use crate::Function;

/// A generated file: its path from the project's root, and its content.
pub struct GeneratedFile {
    /// Path from the project's root.
    pub path: &'static str,
    /// Content.
    pub content: String,
}

/// All generated files.
pub fn generated_files() -> Result<[GeneratedFile; 2], serde_saphyr::ser::Error> {
    let yaml = serde_saphyr::to_string(&Function::crd())?;
    Ok([
        GeneratedFile {
            path: "crds/functions.isolet.dev.yaml",
            content: format!("# Generated from crds/src/function.rs by `make crds`.\n{yaml}"),
        },
        GeneratedFile {
            path: "charts/isolet/templates/crds.yaml",
            content: chart_template(&yaml),
        },
    ])
}

/// A template and not a file under the chart's `crds/`, which Helm would install but never upgrade. `keep` leaves the CRD,
/// and with it every Function, where the chart is uninstalled.
fn chart_template(yaml: &str) -> String {
    let yaml = yaml.replace("{{", "{{ \"{{\" }}");
    let annotated = yaml.replacen(
        "metadata:\n",
        "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
        1,
    );
    format!(
        "{{{{- /* Generated from crds/src/function.rs by `make crds`. */ -}}}}\n{{{{- if .Values.crds.install }}}}\n{annotated}{{{{- end }}}}\n"
    )
}
