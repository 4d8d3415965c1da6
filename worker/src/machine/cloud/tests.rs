//! Metadata services that follow their providers' documents, and some that do not.

use super::*;
use crate::machine::fake::{answered, refused, service};

#[tokio::test]
async fn aws_is_asked_with_a_session_token() {
    let address = service(|head| {
        let lower = head.to_lowercase();
        if head.starts_with("PUT /latest/api/token ") {
            assert!(lower.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600"));
            return answered("TOKEN==");
        }
        if !lower.contains("x-aws-ec2-metadata-token: token==") {
            return refused("401 Unauthorized");
        }
        match head.split(' ').nth(1).unwrap() {
            "/latest/meta-data/instance-type" => answered("g4dn.xlarge"),
            "/latest/meta-data/placement/availability-zone" => answered("us-east-1a"),
            _ => refused("404 Not Found"),
        }
    })
    .await;
    let place = Cloud::Aws(address).place().await;
    assert_eq!((place.instance_type.as_str(), place.zone.as_str()), ("g4dn.xlarge", "us-east-1a"));
}

#[tokio::test]
async fn google_is_asked_with_its_header_and_answers_with_paths() {
    let address = service(|head| {
        if !head.to_lowercase().contains("metadata-flavor: google") {
            return refused("403 Forbidden");
        }
        match head.split(' ').nth(1).unwrap() {
            "/computeMetadata/v1/instance/machine-type" => answered("projects/7/machineTypes/n1-standard-4"),
            "/computeMetadata/v1/instance/zone" => answered("projects/7/zones/us-central1-b"),
            _ => refused("404 Not Found"),
        }
    })
    .await;
    let place = Cloud::Gce(address).place().await;
    assert_eq!((place.instance_type.as_str(), place.zone.as_str()), ("n1-standard-4", "us-central1-b"));
}

#[tokio::test]
async fn azure_answers_in_json() {
    let address = service(|head| {
        assert!(head.to_lowercase().contains("metadata: true"));
        assert!(head.starts_with("GET /metadata/instance/compute?api-version=2021-02-01 "));
        answered(r#"{"vmSize":"Standard_NC6s_v3","location":"westeurope","zone":"2","tags":""}"#)
    })
    .await;
    let place = Cloud::Azure(address).place().await;
    assert_eq!((place.instance_type.as_str(), place.zone.as_str()), ("Standard_NC6s_v3", "westeurope-2"));
}

#[tokio::test]
async fn a_service_that_is_silent_absent_or_talks_nonsense_costs_little_and_gives_nothing() {
    let endless = "HTTP/1.1 200 OK\r\n\r\n".to_owned() + &"x".repeat(1 << 20);
    let nonsense: Vec<String> = vec![
        service(|_| None).await,
        service(|_| Some("SSH-2.0-OpenSSH\r\n\r\n".to_owned())).await,
        service(|_| answered("<html>please log in to the wireless network</html>")).await,
        service(move |_| Some(endless.clone())).await,
        service(|_| refused("500 Internal Server Error")).await,
        "http://127.0.0.1:1".to_owned(),
        "not a url".to_owned(),
    ];
    let started = std::time::Instant::now();
    for address in nonsense {
        for cloud in [Cloud::Aws(address.clone()), Cloud::Gce(address.clone()), Cloud::Azure(address.clone())]
        {
            assert_eq!(cloud.place().await, Place::default(), "{cloud:?}");
        }
    }
    assert!(started.elapsed() < PATIENCE * 8, "{:?}", started.elapsed());
}

#[test]
fn only_the_firmware_of_a_cloud_makes_one() {
    let firmware = |vendor: &str, product: &str, tag: &str| Firmware {
        vendor: vendor.to_owned(),
        product: product.to_owned(),
        chassis_tag: tag.to_owned(),
    };
    let cloud = |vendor, product, tag| Cloud::from_firmware(&firmware(vendor, product, tag));
    assert!(matches!(cloud("Amazon EC2", "c5.large", "Amazon EC2"), Some(Cloud::Aws(_))));
    assert!(matches!(cloud("Google", "Google Compute Engine", ""), Some(Cloud::Gce(_))));
    let azure = cloud("Microsoft Corporation", "Virtual Machine", "7783-7084-3265-9085-8269-3286-77");
    assert!(matches!(azure, Some(Cloud::Azure(_))));
    assert_eq!(cloud("Microsoft Corporation", "Virtual Machine", ""), None);
    assert_eq!(cloud("QEMU", "Standard PC", ""), None);
    assert_eq!(cloud("", "", ""), None);
}
