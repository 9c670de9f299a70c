import java.net.InetSocketAddress;
import org.codelibs.opensearch.runner.OpenSearchRunner;
import org.opensearch.common.settings.Settings;
import org.opensearch.http.HttpServerTransport;

/**
 * One OpenSearch node on loopback, for tests: prints its port, and ends with standard input.
 *
 * Arguments: a directory of its own, a port (0: any that is free), then settings, such as a=b.
 */
public class Node {
    public static void main(String[] args) throws Exception {
        var runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> configure(settings, args));
        runner.build(OpenSearchRunner.newConfigs().basePath(args[0]).numOfNode(1)
            .clusterName("longrun-test").disableESLogger());
        runner.ensureYellow();
        var http = runner.getInstance(HttpServerTransport.class).boundAddress().publishAddress();
        System.out.println("port " + http.getPort());
        while (System.in.read() >= 0) {
            // until whoever started it closes the pipe, or is dead
        }
        runner.close();
        System.exit(0);
    }

    private static void configure(Settings.Builder settings, String[] args) {
        settings.put("http.port", args[1]);
        settings.put("transport.port", "0");
        settings.put("network.host", "127.0.0.1");
        settings.put("discovery.type", "single-node");
        settings.putList("node.roles", "cluster_manager", "data", "ingest");
        settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (int i = 2; i < args.length; i++) {
            var parts = args[i].split("=", 2);
            settings.put(parts[0], parts[1]);
        }
    }
}
