# Two machines: a copy, what is there afterwards, and the name under which nixos-rebuild finds the program. For whoever has a
# builder with KVM: `nix build .#checks.x86_64-linux.vm`.
{ pkgs, self }:

let
  inherit (import "${pkgs.path}/nixos/tests/ssh-keys.nix" pkgs) snakeOilPrivateKey snakeOilPublicKey;
  payload = pkgs.writeTextDir "share/greeting" "hello";
in
pkgs.testers.runNixOSTest {
  name = "nix-copy-closure";

  nodes.sender = {
    imports = [ self.nixosModules.default ];
    programs.nix-copy-closure.enable = true;
    virtualisation.additionalPaths = [ payload ];
    programs.ssh.extraConfig = ''
      Host receiver
        IdentityFile /root/key
        StrictHostKeyChecking no
    '';
  };

  nodes.receiver = {
    services.openssh.enable = true;
    users.users.root.openssh.authorizedKeys.keys = [ snakeOilPublicKey ];
    virtualisation.writableStore = true;
  };

  testScript = { nodes, ... }: ''
    import json

    start_all()
    receiver.wait_for_unit("sshd.service")
    sender.succeed("install -m 600 ${snakeOilPrivateKey} /root/key")

    # The Nix that nixos-rebuild is built with.
    program = "${nodes.sender.nix.package}/bin/nix-copy-closure"
    ours = sender.succeed("ncc --version")
    assert sender.succeed(f"{program} --version") == ours, "the Nix of the system has another nix-copy-closure"

    receiver.fail("nix-store --check-validity ${payload}")
    sender.succeed(f"{program} --to root@receiver ${payload} >&2")
    receiver.succeed("nix-store --verify-path ${payload}")
    report = json.loads(sender.succeed(f"{program} --json --to root@receiver ${payload}"))
    assert report["sent"]["count"] == 0, report
  '';
}
