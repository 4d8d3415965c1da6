//! What kind of machine a cloud says this is, and where. Asked once, with short patience; silence is an answer.

use super::{
    http::{HttpError, ask},
    imds::Imds,
};
use serde::Deserialize;
use std::{fs, path::Path, sync::OnceLock, time::Duration};
use tokio::join;

/// A metadata service answers within a few milliseconds or not at all.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest name that is believed, in bytes.
const NAME_BYTES: usize = 64;
/// Replaces the address of AWS' service, as its own tools know it.
const AWS_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
/// Replaces host and port of Google's service, as its own tools know it.
const GCE_VARIABLE: &str = "GCE_METADATA_HOST";
/// Replaces the address of Azure's service; Azure's tools have no variable for it.
const AZURE_VARIABLE: &str = "SPOTSWEEP_AZURE_METADATA_ENDPOINT";

/// Where all three have their service.
const LINK_LOCAL: &str = "169.254.169.254";

fn variable_or(name: &str, address: &str) -> String {
    let set = std::env::var(name).ok().filter(|value| !value.is_empty());
    set.unwrap_or_else(|| address.to_owned())
}

/// What the firmware says of the machine's maker (DMI tables, as Linux shows them).
#[derive(Debug, Default)]
pub(crate) struct Firmware {
    vendor: String,
    product: String,
    chassis_tag: String,
}

impl Firmware {
    pub(crate) fn read() -> Self {
        let read = |name: &str| {
            let text = fs::read_to_string(Path::new("/sys/class/dmi/id").join(name));
            text.unwrap_or_default().trim().to_owned()
        };
        Self {
            vendor: read("sys_vendor"),
            product: read("product_name"),
            chassis_tag: read("chassis_asset_tag"),
        }
    }
}

/// Kind and place of a machine, as its cloud names them; empty where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) instance_type: String,
    pub(crate) zone: String,
}

/// A cloud and the address of its metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cloud {
    Aws(String),
    Gce(String),
    Azure(String),
}

impl Cloud {
    /// The cloud that this machine is of, if of any. Reads three small files, once.
    pub(crate) fn here() -> Option<&'static Self> {
        static HERE: OnceLock<Option<Cloud>> = OnceLock::new();
        HERE.get_or_init(|| Self::from_firmware(&Firmware::read())).as_ref()
    }

    /// Amazon EC2.
    pub(crate) fn aws() -> Self {
        Self::Aws(variable_or(AWS_VARIABLE, &format!("http://{LINK_LOCAL}")))
    }

    /// Google Compute Engine.
    pub(crate) fn gce() -> Self {
        Self::Gce(format!("http://{}", variable_or(GCE_VARIABLE, LINK_LOCAL)))
    }

    /// Azure.
    pub(crate) fn azure() -> Self {
        Self::Azure(variable_or(AZURE_VARIABLE, &format!("http://{LINK_LOCAL}")))
    }

    /// The cloud that the firmware names. Azure's asset tag is documented with its metadata service; a Microsoft
    /// vendor without it is Hyper-V elsewhere.
    pub(crate) fn from_firmware(firmware: &Firmware) -> Option<Self> {
        if firmware.vendor == "Amazon EC2" || firmware.vendor == "Xen" && firmware.product.contains("amazon")
        {
            Some(Self::aws())
        } else if firmware.vendor == "Google" || firmware.product == "Google Compute Engine" {
            Some(Self::gce())
        } else if firmware.chassis_tag == "7783-7084-3265-9085-8269-3286-77" {
            Some(Self::azure())
        } else {
            None
        }
    }

    /// Asks the metadata service.
    pub(crate) async fn place(&self) -> Place {
        let place = match self {
            Self::Aws(address) => aws(address).await,
            Self::Gce(address) => gce(address).await,
            Self::Azure(address) => azure(address).await,
        };
        place.unwrap_or_else(|error| {
            tracing::info!(%error, cloud = ?self, "the metadata service says nothing of this machine");
            Place::default()
        })
    }
}

async fn aws(address: &str) -> Result<Place, HttpError> {
    let mut service = Imds::new(address, PATIENCE);
    let kind = service.get("instance-type").await?.unwrap_or_default();
    let zone = service.get("placement/availability-zone").await?.unwrap_or_default();
    Ok(Place { instance_type: believable(&kind), zone: believable(&zone) })
}

/// Google Compute Engine names both as paths (`projects/1/zones/us-central1-a`); the last part counts ("VM
/// metadata", Google Cloud documentation).
async fn gce(address: &str) -> Result<Place, HttpError> {
    let base = format!("{}/computeMetadata/v1/instance", address.trim_end_matches('/'));
    let headers = [("Metadata-Flavor", "Google")];
    let (kind, zone) = (format!("{base}/machine-type"), format!("{base}/zone"));
    let (kind, zone) = join!(ask("GET", &kind, &headers, PATIENCE), ask("GET", &zone, &headers, PATIENCE));
    let last = |path: &str| believable(path.rsplit('/').next().unwrap_or_default());
    Ok(Place { instance_type: last(&kind?), zone: last(&zone?) })
}

/// Azure Instance Metadata Service (Microsoft's documentation of it, API version 2021-02-01). Zones have numbers
/// there, and mean something within a location only.
async fn azure(address: &str) -> Result<Place, HttpError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Compute {
        #[serde(default)]
        vm_size: String,
        #[serde(default)]
        location: String,
        #[serde(default)]
        zone: String,
    }
    let url = format!("{}/metadata/instance/compute?api-version=2021-02-01", address.trim_end_matches('/'));
    let text = ask("GET", &url, &[("Metadata", "true")], PATIENCE).await?;
    let compute: Compute = serde_json::from_str(&text).map_err(|_| HttpError::Text)?;
    let zone = if compute.zone.is_empty() {
        compute.location
    } else {
        format!("{}-{}", compute.location, compute.zone)
    };
    Ok(Place { instance_type: believable(&compute.vm_size), zone: believable(&zone) })
}

/// The answer if it looks like a name, else nothing: a captive portal's page is none.
fn believable(text: &str) -> String {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.len() <= NAME_BYTES && text.chars().all(fits) { text.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests;
