_pkgs: {
  snakeOilPrivateKey = "/key";
  snakeOilPublicKey = "ssh-ed25519 AAAA";
}
