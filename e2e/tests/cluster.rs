#[tokio::test]
async fn up() {
    let begun = std::time::Instant::now();
    let path = penstock_e2e::cluster::up(Default::default()).await.unwrap();
    eprintln!("up in {:?}: {}", begun.elapsed(), path.display());
}

#[test]
fn down() {
    let begun = std::time::Instant::now();
    penstock_e2e::cluster::down().unwrap();
    eprintln!("down in {:?}", begun.elapsed());
}
