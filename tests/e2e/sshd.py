"""An sshd of our own on a high port, an ordinary process for each connection, and the client that trusts it."""
import os
import socketserver
import subprocess

from local import Threads


class Sshd:
    """Serves the user of the test with a key made for it, as one of the local servers. ssh() runs the client."""

    def __init__(self, local):
        self.folder = folder = local.files.parent / 'sshd'
        folder.mkdir(mode=0o700)
        for name in ['host', 'user']:
            subprocess.run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', folder / name], check=True, timeout=20)
        if os.geteuid() == 0:
            os.makedirs('/run/sshd', mode=0o755, exist_ok=True)  # where it locks itself in; made at boot elsewhere
        self.log = log = folder / 'sshd.log'
        log.touch()
        config = folder / 'sshd_config'
        config.write_text(f'HostKey {folder}/host\nPidFile none\nUsePAM no\nAuthorizedKeysFile {folder}/user.pub\n'
                          'StrictModes no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n')

        class OneSshd(socketserver.BaseRequestHandler):
            """As inetd does it: no port has to be free a moment later."""

            def handle(self):
                with open(log, 'ab') as errors:
                    subprocess.run(['/usr/sbin/sshd', '-i', '-e', '-f', config], stdin=self.request, stdout=self.request,
                                   stderr=errors)

        self.port = local.serve(Threads, OneSshd)
        key = (folder / 'host.pub').read_text().split()
        (folder / 'known').write_text(f'kadmsg-test {key[0]} {key[1]}\n')

    def options(self):
        return ['-F', 'none', '-o', f'IdentityFile={self.folder}/user', '-o', 'IdentitiesOnly=yes', '-o', 'BatchMode=yes',
                '-o', f'UserKnownHostsFile={self.folder}/known', '-o', 'HostKeyAlias=kadmsg-test', '-o', 'LogLevel=ERROR']

    def ssh(self, *args, port, data=b'', timeout=60):
        """The finished process, its output in bytes."""
        return subprocess.run(['ssh', *self.options(), '-p', str(port), '127.0.0.1', *args], input=data, timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
